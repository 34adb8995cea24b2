// A producer and a worker that connects again: see java.md.

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.*;

public class Client {
    static final Set<Integer> STOP = Set.of(400, 401, 403, 404, 405, 413, 414, 426, 431, 505, 1002, 1003, 1007,
        1008, 1009, 4000, 4500, 4501, 4502, 4503, 4504, 4505);
    static final Set<Integer> AT_ONCE = Set.of(1001, 4002, 4003, 4004);
    static final long FIRST = 500; // ms
    static final JsonObject END = new JsonObject();
    static final String QUEUE =
        "/queue/" + URLEncoder.encode(System.getenv("BULLMQ_QUEUE"), StandardCharsets.UTF_8).replace("+", "%20");

    static long pause = FIRST;
    static volatile boolean ending = false;

    /** One connection: received has its messages, and then END. */
    static class Link implements WebSocket.Listener {
        final BlockingQueue<JsonObject> received = new LinkedBlockingQueue<>();
        final StringBuilder text = new StringBuilder();
        final long began = System.currentTimeMillis();
        WebSocket socket;
        int code = 1006;
        String words = "the connection broke";

        public CompletionStage<?> onText(WebSocket from, CharSequence part, boolean isLast) {
            text.append(part);
            if (isLast) {
                received.add(JsonParser.parseString(text.toString()).getAsJsonObject());
                text.setLength(0);
            }
            from.request(1);
            return null;
        }

        public CompletionStage<?> onClose(WebSocket from, int code, String reason) {
            this.code = code;
            onError(from, new Exception(reason));
            return null;
        }

        public void onError(WebSocket from, Throwable error) {
            words = error.getMessage();
            received.add(END);
        }

        synchronized void send(JsonElement id, String data) {
            await(socket.sendText("{\"id\":" + id + ",\"data\":" + data + "}", true));
        }

        void await(CompletableFuture<WebSocket> sent) {
            sent.whenComplete((done, error) -> {
                if (error != null) onError(socket, error);
            }).exceptionally(error -> null).join();
        }

        /** Waits for the next message, or END; the JDK does not always tell of a connection that broke, but pings fail. */
        JsonObject next() throws InterruptedException {
            for (JsonObject message;;) {
                if ((message = received.poll(2, TimeUnit.SECONDS)) != null) return message;
                await(socket.sendPing(ByteBuffer.allocate(4)));
            }
        }
    }

    /** What to show, read before each connection: put here what gets a fresh token. */
    static String key() throws IOException {
        String file = System.getenv("BULLMQ_KEY_FILE");
        return file == null ? System.getenv("BULLMQ_KEY") : Files.readString(Path.of(file)).strip();
    }

    /** Tries until there is a connection; before is the one that has ended, if any. */
    static Link connect(String path, Link before) throws IOException, InterruptedException {
        if (before != null) {
            pause = System.currentTimeMillis() - before.began > 10_000 ? FIRST : pause; // it has worked
            rest(before.code, before.words, 0);
        }
        for (;;) {
            Link link = new Link();
            try {
                link.socket = HttpClient.newHttpClient().newWebSocketBuilder()
                    .header("Authorization", "Bearer " + key())
                    .buildAsync(URI.create(System.getenv("BULLMQ_URL") + path), link).join();
                return link;
            } catch (CompletionException failed) {
                var got = failed.getCause() instanceof WebSocketHandshakeException refused ? refused.getResponse() : null;
                if (got == null) rest(1006, failed.getCause().toString(), 0);
                else rest(got.statusCode(), "" + got.body(), 1000 * got.headers().firstValueAsLong("Retry-After").orElse(0));
            }
        }
    }

    /** Waits before the next try, or ends the program when the gateway refuses for good. */
    static void rest(int code, String words, long least) throws InterruptedException {
        System.err.println("no connection: " + code + " " + words);
        if (STOP.contains(code)) System.exit(1);
        boolean isFirst = AT_ONCE.contains(code) && pause == FIRST;
        Thread.sleep(Math.max(least, isFirst ? 0 : ThreadLocalRandom.current().nextLong(pause / 2, pause)));
        pause = Math.min(2 * pause, 30_000);
    }

    /** Does the work of a job; its result is any JSON. Put yours here. */
    static JsonElement handle(JsonElement payload) throws Exception {
        JsonObject wanted = payload.isJsonObject() ? payload.getAsJsonObject() : new JsonObject();
        if (wanted.has("wait")) Thread.sleep(wanted.get("wait").getAsLong());
        if (wanted.has("fail")) throw new Exception(wanted.get("fail").getAsString());
        return payload;
    }

    static String answer(JsonElement payload) {
        try {
            return "{\"result\":" + handle(payload) + "}";
        } catch (Exception error) {
            return "{\"err\":{\"message\":" + new JsonPrimitive(String.valueOf(error.getMessage())) + "}}";
        }
    }

    static void work() throws IOException, InterruptedException {
        Phaser inHand = new Phaser(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            ending = true;
            inHand.arriveAndAwaitAdvance();
        }));
        for (Link last = null;;) {
            Link link = last = connect(QUEUE + "/process/10", last); // what was in hand comes again on this one
            Set<JsonElement> mine = ConcurrentHashMap.newKeySet(); // neither answered nor cancelled
            for (JsonObject message; (message = link.next()) != END;) {
                JsonElement id = message.get("id");
                JsonObject data = message.getAsJsonObject("data");
                String type = data.has("type") ? data.get("type").getAsString() : "";
                if (type.equals("cancel")) mine.remove(id);
                if (!type.equals("process") || ending) continue;
                mine.add(id);
                inHand.register();
                new Thread(() -> {
                    link.send(id, "{\"type\":\"ack\"}");
                    String answer = answer(data.get("payload"));
                    if (mine.remove(id)) link.send(id, answer);
                    inHand.arriveAndDeregister();
                }).start();
            }
        }
    }

    /** Makes the calls of the standard input, and prints what is answered; an add with a jobId is safe to make again. */
    static void produce() throws Exception {
        Link link = connect(QUEUE, null);
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var output = new java.io.PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line; (line = input.readLine()) != null;) {
            JsonObject call = JsonParser.parseString(line).getAsJsonObject();
            JsonElement id = new JsonPrimitive(UUID.randomUUID().toString());
            JsonArray args = call.has("args") ? call.getAsJsonArray("args") : new JsonArray();
            boolean isSafe = call.get("fn").getAsString().equals("add") && args.size() > 2
                && args.get(2).isJsonObject() && args.get(2).getAsJsonObject().has("jobId");
            for (String answer = null; answer == null;) {
                link.send(id, line);
                JsonObject message = link.next();
                while (message != END && !id.equals(message.get("id"))) message = link.next();
                if (message == END) link = connect(QUEUE, link);
                if (message != END) answer = message.get("data").toString();
                else if (!isSafe) answer = "{\"err\":{\"code\":\"OUTCOME_UNKNOWN\"}}";
                if (answer != null) output.println(answer);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (System.getenv("BULLMQ_ROLE").equals("worker")) work(); else produce();
    }
}
