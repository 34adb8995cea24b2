// A producer and a worker that connects again: see csharp.md.

using System;
using System.Collections.Concurrent;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Net.WebSockets;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json.Nodes;
using System.Threading;
using System.Threading.Tasks;

public class Link
{
    public readonly ClientWebSocket Socket = new ClientWebSocket();
    public readonly DateTime Began = DateTime.UtcNow;
    readonly SemaphoreSlim writing = new SemaphoreSlim(1); // one sends at a time

    public async Task Send(string id, string data)
    {
        var text = Encoding.UTF8.GetBytes("{\"id\":" + id + ",\"data\":" + data + "}");
        await writing.WaitAsync();
        try
        {
            await Socket.SendAsync(new ArraySegment<byte>(text), WebSocketMessageType.Text, true, CancellationToken.None);
        }
        catch (Exception error) when (error is WebSocketException || error is InvalidOperationException)
        {
            // whoever receives finds out, too
        }
        finally
        {
            writing.Release();
        }
    }

    // Returns the next message; null once the connection has ended.
    public async Task<JsonNode> Receive()
    {
        var buffer = new ArraySegment<byte>(new byte[65536]);
        var text = new MemoryStream();
        try
        {
            while (true)
            {
                var part = await Socket.ReceiveAsync(buffer, CancellationToken.None);
                if (part.MessageType == WebSocketMessageType.Close) return null;
                text.Write(buffer.Array, 0, part.Count);
                if (part.EndOfMessage) return JsonNode.Parse(Encoding.UTF8.GetString(text.ToArray()));
            }
        }
        catch (WebSocketException)
        {
            return null;
        }
    }
}

public static class Client
{
    const int First = 200; // ms
    static readonly int[] Stop =
        {
            400, 401, 403, 404, 405, 413, 414, 426, 431, 505, 1002, 1003, 1007, 1008, 1009, 4000,
            4500, 4501, 4502, 4503, 4504, 4505
        };
    static readonly int[] AtOnce = { 1001, 4002, 4003, 4004 };
    static readonly string Url = Environment.GetEnvironmentVariable("BULLMQ_URL");
    static readonly string Queue = "/queue/" + Uri.EscapeDataString(Environment.GetEnvironmentVariable("BULLMQ_QUEUE"));
    static readonly HttpClient Http = new HttpClient();
    static readonly Random Chance = new Random();
    static int pause = First, inHand;
    static volatile bool ending; // no new jobs are taken

    // What to show, read before each connection: put here what gets a fresh token.
    static string Key()
    {
        var file = Environment.GetEnvironmentVariable("BULLMQ_KEY_FILE");
        return file == null ? Environment.GetEnvironmentVariable("BULLMQ_KEY") : File.ReadAllText(file).Trim();
    }

    // Tries until there is a connection; before is the one that has ended, if any.
    static async Task<Link> Connect(string path, Link before)
    {
        if (before != null)
        {
            if (DateTime.UtcNow - before.Began > TimeSpan.FromSeconds(10)) pause = First; // it has worked
            var code = (int?)before.Socket.CloseStatus ?? 1006;
            await Rest(code, before.Socket.CloseStatusDescription ?? "the connection broke", 0);
            before.Socket.Dispose();
        }
        while (true)
        {
            var link = new Link();
            link.Socket.Options.SetRequestHeader("Authorization", "Bearer " + Key());
            try
            {
                await link.Socket.ConnectAsync(new Uri(Url + path), CancellationToken.None);
                return link;
            }
            catch (WebSocketException error)
            {
                await Refused(path, error.Message);
            }
        }
    }

    // Asks by a plain request why a handshake has failed: 426 means that nothing is wrong but that it is none.
    static async Task Refused(string path, string words)
    {
        var (code, least) = (1006, 0.0);
        try
        {
            var request = new HttpRequestMessage(HttpMethod.Get, "http" + Url.Substring(2) + path);
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", Key());
            var response = await Http.SendAsync(request);
            words = await response.Content.ReadAsStringAsync();
            code = (int)response.StatusCode == 426 ? 1006 : (int)response.StatusCode;
            least = response.Headers.RetryAfter?.Delta?.TotalMilliseconds ?? 0;
        }
        catch (HttpRequestException error)
        {
            words = error.Message;
        }
        await Rest(code, words, least);
    }

    // Waits before the next try, or ends the program when the gateway refuses for good.
    static async Task Rest(int code, string words, double least)
    {
        Console.Error.WriteLine($"no connection: {code} {words}");
        if (Stop.Contains(code)) Environment.Exit(1);
        var wait = AtOnce.Contains(code) && pause == First ? 0 : pause * (0.5 + Chance.NextDouble() / 2);
        await Task.Delay((int)Math.Max(wait, least));
        pause = Math.Min(2 * pause, 30000);
    }

    // Does the work of a job; its result is any JSON. Put yours here.
    static async Task<JsonNode> Handle(JsonNode payload)
    {
        var wanted = payload as JsonObject;
        if (wanted?["wait"] != null) await Task.Delay((int)wanted["wait"]);
        if (wanted?["fail"] != null) throw new Exception((string)wanted["fail"]);
        return payload;
    }

    static async Task Do(Link link, string id, JsonNode payload, ConcurrentDictionary<string, bool> mine)
    {
        await link.Send(id, "{\"type\":\"ack\"}");
        string answer;
        try
        {
            answer = "{\"result\":" + ((await Handle(payload))?.ToJsonString() ?? "null") + "}";
        }
        catch (Exception error)
        {
            answer = "{\"err\":{\"message\":" + JsonValue.Create(error.Message).ToJsonString() + "}}";
        }
        if (mine.TryRemove(id, out _)) await link.Send(id, answer);
        Interlocked.Decrement(ref inHand);
    }

    static async Task Work()
    {
        for (Link last = null; ;)
        {
            var link = last = await Connect(Queue + "/process/10", last); // what was in hand comes again on this one
            var mine = new ConcurrentDictionary<string, bool>(); // the jobs that are neither answered nor cancelled
            for (JsonNode message; (message = await link.Receive()) != null;)
            {
                var (id, data, type) = (message["id"].ToJsonString(), message["data"], message["data"]["type"]?.ToString());
                if (type == "cancel") mine.TryRemove(id, out _);
                if (type != "process" || ending) continue;
                mine[id] = true;
                Interlocked.Increment(ref inHand);
                _ = Task.Run(() => Do(link, id, data["payload"], mine));
            }
        }
    }

    // Makes the calls of the standard input, and prints what is answered; an add with a jobId is safe to make again.
    static async Task Produce()
    {
        var input = new StreamReader(Console.OpenStandardInput(), Encoding.UTF8);
        Console.OutputEncoding = new UTF8Encoding(false);
        var link = await Connect(Queue, null);
        var number = 0;
        for (string line; (line = input.ReadLine()) != null;)
        {
            var call = JsonNode.Parse(line);
            var args = call["args"] as JsonArray;
            var isSafe = (string)call["fn"] == "add" && args?.Count > 2 && (args[2] as JsonObject)?["jobId"] != null;
            var id = (++number).ToString();
            string answer = null;
            while (answer == null)
            {
                await link.Send(id, line);
                var message = await link.Receive();
                while (message != null && message["id"].ToJsonString() != id) message = await link.Receive();
                answer = message?["data"].ToJsonString() ?? (isSafe ? null : "{\"err\":{\"code\":\"OUTCOME_UNKNOWN\"}}");
                if (message == null) link = await Connect(Queue, link);
            }
            Console.WriteLine(answer);
        }
    }

    public static async Task Main()
    {
        var registration = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = ending = true;
            Task.Run(async () =>
            {
                while (Volatile.Read(ref inHand) > 0) await Task.Delay(20);
                Environment.Exit(0);
            });
        });
        if (Environment.GetEnvironmentVariable("BULLMQ_ROLE") == "producer") await Produce();
        else await Work();
        registration.Dispose();
    }
}
