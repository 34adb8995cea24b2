# A producer and a worker that connects again: see ruby.md.

require "erb"
require "json"
require "monitor"
require "socket"
require "uri"
require "websocket/driver"

STOP = [400, 401, 403, 404, 405, 413, 414, 426, 431, 505, 1002, 1003, 1007, 1008, 1009, 4000, *4500..4505]
AT_ONCE = [1001, 4002, 4003, 4004]
FIRST_PAUSE = 0.2 # s
WebSocket::Driver::Hybi::ERROR_CODES.push(1012, 1013) # it takes codes that it does not know for 1002
QUEUE = "/queue/#{ERB::Util.url_encode(ENV.fetch("BULLMQ_QUEUE"))}"

# What to show, read before each connection: put here what gets a fresh token.
def key
  file = ENV["BULLMQ_KEY_FILE"]
  file ? File.read(file).strip : ENV.fetch("BULLMQ_KEY")
end

# A connection that is made again when it ends.
class Link
  attr_reader :url # for the driver

  def initialize(path)
    @url = ENV.fetch("BULLMQ_URL") + path
    @lock = Monitor.new
  end

  def write(bytes) # for the driver
    @socket.write(bytes)
  rescue SystemCallError, IOError
    nil # whoever reads finds out, too
  end

  def send(id, data)
    @lock.synchronize { @driver.text(JSON.generate({ id: id, data: data })) }
  end

  # Yields :open, each id with its data, and :broke, again and again; ends the program when the gateway refuses for good.
  def run(&heard)
    pause = FIRST_PAUSE
    loop do
      opened = Time.now
      code, words, least = connect(&heard)
      heard.call(:broke)
      warn("no connection: #{code} #{words}")
      exit(1) if STOP.include?(code)
      pause = FIRST_PAUSE if Time.now - opened > 10 # it has worked
      wait = AT_ONCE.include?(code) && pause == FIRST_PAUSE ? 0 : pause * rand(0.5..1.0)
      sleep([wait, least].max)
      pause = [2 * pause, 30].min
    end
  end

  private

  # Is connected until that ends, and returns why it did: a status or close code, words, and the least time to wait.
  def connect
    code, words, came = 1006, "the connection broke", +""
    @socket = TCPSocket.new(URI(@url).host, URI(@url).port || 80)
    @driver = WebSocket::Driver.client(self, max_length: 2**30)
    @driver.set_header("Authorization", "Bearer #{key}")
    @driver.on(:open) { yield :open }
    @driver.on(:close) { |event| code, words = event.code, event.reason }
    @driver.on(:message) { |event| yield(*JSON.parse(event.data).values_at("id", "data")) }
    @driver.start
    loop do
      bytes = @socket.readpartial(65_536)
      came << bytes unless @driver.status == 101
      @lock.synchronize { @driver.parse(bytes) }
    end
  rescue SystemCallError, IOError => error
    return [1006, error.message, 0] if @driver.nil? || @driver.status.nil?
    return [code, words, 0] if @driver.status == 101

    [@driver.status, came.split("\r\n\r\n", 2)[1], @driver.headers["Retry-After"].to_i]
  ensure
    @socket&.close
  end
end

# Does the work of a job; its result is any JSON. Put yours here.
def handle(payload)
  sleep(payload["wait"] / 1000.0) if payload["wait"]
  raise payload["fail"] if payload["fail"]

  payload
end

def work
  link, jobs, threads, ending = Link.new("#{QUEUE}/process/10"), {}, ThreadGroup.new, false
  trap("TERM") { Thread.new { (ending = true) && threads.list.each(&:join) && Process.exit!(0) } }
  link.run do |id, data|
    case id == :broke ? "broke" : data && data["type"]
    when "broke" # the jobs in hand come again on the next connection
      jobs.clear
      jobs = {}
    when "cancel"
      jobs.delete(id)
    when "process"
      next if ending

      jobs[id] = true
      threads.add(Thread.new(jobs) do |mine|
        link.send(id, { type: "ack" })
        answer = begin
          { result: handle(data["payload"]) }
        rescue StandardError => error
          { err: { message: error.message } }
        end
        link.send(id, answer) if mine.delete(id)
      end)
    end
  end
end

# Makes the calls of the standard input, and prints what is answered; an add with a jobId is safe to make again.
def produce
  link, events = Link.new(QUEUE), Queue.new
  Thread.new { link.run { |id, data| events << [id, data] } }
  is_open = false
  $stdin.each_line.with_index do |line, n|
    call, answer = JSON.parse(line), nil
    is_safe = call["fn"] == "add" && call.dig("args", 2, "jobId")
    until answer
      is_open = events.pop[0] == :open until is_open
      link.send(n, call)
      id, data = events.pop until [n, :broke].include?(id)
      is_open = id != :broke
      answer = data || (is_safe ? nil : { err: { code: "OUTCOME_UNKNOWN", message: "the connection broke" } })
      id = nil
    end
    puts(JSON.generate(answer))
    $stdout.flush
  end
end

ENV["BULLMQ_ROLE"] == "producer" ? produce : work
