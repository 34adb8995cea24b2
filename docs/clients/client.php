<?php
// A producer and a worker over plain HTTP, which tries again: see php.md.

$gateway = preg_replace('/^ws/', 'http', getenv('BULLMQ_URL')) . '/queue/' . rawurlencode(getenv('BULLMQ_QUEUE'));
$ending = false; // no new jobs are taken

/** What to show, read before each request: put here what gets a fresh token. */
function shownKey(): string
{
    $file = getenv('BULLMQ_KEY_FILE');
    return $file === false ? getenv('BULLMQ_KEY') : trim(file_get_contents($file));
}

/** Makes a call; tries again what was not carried out, and what is safe to carry out twice. Returns ok or err. */
function call(string $fn, array $args, bool $isSafe): object
{
    global $gateway, $ending;
    for ($pause = 0.5; ; $pause = min(2 * $pause, 30)) {
        $context = stream_context_create(['http' => [
            'method' => 'POST',
            'header' => 'Authorization: Bearer ' . shownKey(),
            'content' => json_encode($args, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR),
            'ignore_errors' => true, // the answer also has the words of an error
            'timeout' => 60,
        ]]);
        $answer = @file_get_contents("$gateway/$fn", false, $context);
        $status = $answer === false ? 0 : (int) explode(' ', $http_response_header[0])[1];
        $words = $answer === false ? (error_get_last()['message'] ?? 'no answer') : $answer;
        if ($status === 401 || $status === 403) {
            fwrite(STDERR, "refused: $words\n");
            exit(1);
        }
        $isUnknown = $status === 0 || $status === 500 || $status === 502; // it may have been carried out
        if ($status !== 0 && !in_array($status, [429, 500, 502, 503]) || $isUnknown && !$isSafe || $ending && $fn === 'getNextJob') {
            $read = json_decode($words);
            $unknown = (object) ['err' => (object) ['code' => 'OUTCOME_UNKNOWN', 'message' => $words]];
            return is_object($read) && (isset($read->err) || property_exists($read, 'ok')) ? $read : $unknown;
        }
        fwrite(STDERR, "no answer: $status $words\n");
        preg_match('/^Retry-After: (\d+)/mi', implode("\n", $http_response_header ?? []), $least);
        usleep((int) (1e6 * max($least[1] ?? 0, $pause * mt_rand(500, 1000) / 1000)));
    }
}

/** Does the work of a job; its result is any JSON. Put yours here: longer than a minute it has to call extendJobLock. */
function handle(mixed $data): mixed
{
    usleep(1000 * ($data->wait ?? 0));
    if (isset($data->fail)) {
        throw new RuntimeException($data->fail);
    }
    return $data;
}

function work(): void
{
    global $ending;
    pcntl_async_signals(true);
    foreach ([SIGTERM, SIGINT] as $signal) {
        pcntl_signal($signal, function () use (&$ending) {
            $ending = true;
        });
    }
    $token = bin2hex(random_bytes(16)); // whoever knows it can move this worker's jobs
    while (!$ending) {
        $taken = call('getNextJob', [$token, ['block' => 5000, 'lockDuration' => 60000]], true);
        if (isset($taken->err)) {
            fwrite(STDERR, "no job: {$taken->err->message}\n");
            sleep(5);
        }
        if (!isset($taken->ok)) {
            continue; // there was none
        }
        try {
            $end = ['moveJobToCompleted', [$taken->ok->id, handle($taken->ok->data), $token]];
        } catch (Throwable $error) { // a TypeError, too: it is the job that fails, not the worker
            $end = ['moveJobToFailed', [$taken->ok->id, ['message' => $error->getMessage()], $token]];
        }
        $ended = call(...[...$end, true]); // twice does no harm: the second time the lock is gone
        if (isset($ended->err)) {
            fwrite(STDERR, "job {$taken->ok->id}: {$ended->err->message}\n");
        }
    }
}

/** Makes the calls of the standard input, and prints what is answered; an add with a jobId is safe to make again. */
function produce(): void
{
    while (($line = fgets(STDIN)) !== false) {
        $call = json_decode($line, flags: JSON_THROW_ON_ERROR);
        $isSafe = $call->fn === 'add' && isset($call->args[2]->jobId);
        $answer = call($call->fn, $call->args ?? [], $isSafe);
        echo json_encode($answer, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES), "\n";
    }
}

getenv('BULLMQ_ROLE') === 'producer' ? produce() : work();
