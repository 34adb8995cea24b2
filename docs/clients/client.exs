# A producer and a worker that connects again: see elixir.md.

defmodule Client do
  @stop [400, 401, 403, 404, 405, 413, 414, 426, 431, 505, 1002, 1003, 1007, 1008, 1009, 4000] ++
          Enum.to_list(4500..4505)
  @at_once [1001, 4002, 4003, 4004]
  @first_pause 200

  # Stays connected; `heard` gets the socket with :open, each message, and :broke, again and again.
  def run(path, heard, pause \\ @first_pause) do
    began = System.monotonic_time(:millisecond)

    {code, words, least} =
      try do
        socket = open(path)
        heard.(socket, :open)
        try(do: read(socket, heard, ""), after: heard.(socket, :broke))
      catch
        ended -> ended
      end

    IO.puts(:stderr, "no connection: #{code} #{words}")
    if code in @stop, do: System.halt(1)
    pause = if System.monotonic_time(:millisecond) - began > 10_000, do: @first_pause, else: pause
    wait = if code in @at_once and pause == @first_pause, do: 0, else: round(pause * (1 + :rand.uniform()) / 2)
    Process.sleep(max(wait, 1000 * least))
    run(path, heard, min(2 * pause, 30_000))
  end

  # What to show, read before each connection: put here what gets a fresh token.
  defp key(file \\ System.get_env("BULLMQ_KEY_FILE")) do
    if file, do: String.trim(File.read!(file)), else: System.fetch_env!("BULLMQ_KEY")
  end

  defp open(path) do
    uri = URI.parse(System.fetch_env!("BULLMQ_URL"))
    options = [:binary, active: false, packet: :http_bin, nodelay: true]
    socket = right(:gen_tcp.connect(to_charlist(uri.host), uri.port || 80, options))

    :gen_tcp.send(socket, [
      ["GET ", path, " HTTP/1.1\r\nHost: ", uri.host, ":#{uri.port || 80}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"],
      ["Authorization: Bearer ", key(), "\r\nSec-WebSocket-Version: 13\r\n"],
      ["Sec-WebSocket-Key: ", Base.encode64(:crypto.strong_rand_bytes(16)), "\r\n\r\n"]
    ])

    {:http_response, _, status, _} = right(:gen_tcp.recv(socket, 0))
    headers = headers(socket, %{})
    :inet.setopts(socket, packet: :raw)
    number = fn name -> String.to_integer(Map.get(headers, name, "0")) end
    if status != 101, do: throw({status, recv(socket, number.("content-length")), number.("retry-after")})
    socket
  end

  defp headers(socket, found) do
    case right(:gen_tcp.recv(socket, 0)) do
      {:http_header, _, name, _, value} -> headers(socket, Map.put(found, String.downcase("#{name}"), value))
      :http_eoh -> found
    end
  end

  defp right({:ok, value}), do: value
  defp right({:error, why}), do: throw({1006, inspect(why), 0})
  defp recv(_, 0), do: ""
  defp recv(socket, size), do: right(:gen_tcp.recv(socket, size))

  # Frames of RFC 6455, section 5.2.
  defp read(socket, heard, text) do
    <<fin::1, _::3, opcode::4, _::1, short::7>> = recv(socket, 2)
    size = if short < 126, do: short, else: :binary.decode_unsigned(recv(socket, if(short == 126, do: 2, else: 8)))
    data = recv(socket, size)

    case {opcode, fin} do
      {8, _} ->
        send_frame(socket, 8, data)
        <<code::16, words::binary>> = if data == "", do: <<1005::16>>, else: data
        throw({code, words, 0})

      {control, _} when control > 8 ->
        if control == 9, do: send_frame(socket, 10, data)
        read(socket, heard, text)

      {_, 0} ->
        read(socket, heard, text <> data)

      {_, 1} ->
        heard.(socket, decode(text <> data))
        read(socket, heard, "")
    end
  end

  defp send_frame(socket, opcode, data) do
    {size, mask} = {byte_size(data), :crypto.strong_rand_bytes(4)}
    wide = if size < 126, do: <<size::7>>, else: if(size < 65_536, do: <<126::7, size::16>>, else: <<127::7, size::64>>)
    masked = :crypto.exor(data, binary_part(:binary.copy(mask, div(size, 4) + 1), 0, size))
    :gen_tcp.send(socket, [<<8::4, opcode::4, 1::1, wide::bitstring>>, mask, masked])
  end

  defp tell(socket, id, data), do: send_frame(socket, 1, encode(%{"id" => id, "data" => data}))
  defp encode(value), do: IO.iodata_to_binary(:jiffy.encode(value, [:use_nil]))
  defp decode(text), do: :jiffy.decode(text, [:return_maps, :use_nil])

  # Does the work of a job; its result is any JSON. Put yours here.
  defp handle(payload) do
    if wait = payload["wait"], do: Process.sleep(wait)
    if reason = payload["fail"], do: raise(reason)
    payload
  end

  def work(queue) do
    jobs = :ets.new(:jobs, [:public])
    System.trap_signal(:sigterm, fn -> spawn(fn -> finish(jobs, :ets.insert(jobs, {:ending})) end) && :ok end)

    run(queue <> "/process/10", fn
      socket, %{"id" => id, "data" => %{"type" => "process", "payload" => payload}} ->
        work = fn ->
          receive(do: (:begin -> tell(socket, id, %{"type" => "ack"})))
          tell(socket, id, answer(payload))
          :ets.delete(jobs, id)
        end

        if not :ets.member(jobs, :ending) do
          pid = spawn(work)
          :ets.insert(jobs, {id, pid})
          send(pid, :begin)
        end

      _, %{"id" => id, "data" => %{"type" => "cancel"}} ->
        drop(jobs, :ets.lookup(jobs, id))

      _, :broke ->
        drop(jobs, :ets.tab2list(jobs))

      _, _ ->
        :ok
    end)
  end

  defp answer(payload) do
    %{"result" => handle(payload)}
  rescue
    error -> %{"err" => %{"message" => Exception.message(error)}}
  end

  defp drop(jobs, rows), do: for({id, pid} <- rows, do: Process.exit(pid, :kill) && :ets.delete(jobs, id))

  defp finish(jobs, _) do
    if :ets.info(jobs, :size) == 1, do: System.halt(0)
    Process.sleep(20)
    finish(jobs, nil)
  end

  # Makes the calls of the standard input, and prints what is answered; an add with a jobId is safe to make again.
  def produce(queue) do
    :io.setopts(:standard_io, encoding: :latin1) # bytes as they are
    parent = self()
    spawn(fn -> run(queue, fn socket, what -> send(parent, {socket, what}) end) end)

    Enum.reduce(Enum.with_index(IO.binstream(:stdio, :line)), nil, fn {line, n}, socket ->
      call = decode(line)
      is_safe = call["fn"] == "add" and match?([_, _, %{"jobId" => _} | _], call["args"])
      {socket, answer} = call(socket, n, call, is_safe)
      IO.binwrite([encode(answer), "\n"])
      socket
    end)
  end

  defp call(socket, n, call, is_safe) do
    socket = socket || receive(do: ({socket, :open} -> socket))
    tell(socket, n, call)

    receive do
      {_, %{"id" => ^n, "data" => data}} -> {socket, data}
      {_, :broke} when is_safe -> call(nil, n, call, is_safe)
      {_, :broke} -> {nil, %{"err" => %{"code" => "OUTCOME_UNKNOWN"}}}
    end
  end
end

queue = "/queue/" <> URI.encode(System.fetch_env!("BULLMQ_QUEUE"), &URI.char_unreserved?/1)
if System.get_env("BULLMQ_ROLE") == "producer", do: Client.produce(queue), else: Client.work(queue)
