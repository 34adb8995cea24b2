// What cron-parser says, asked as Node's BullMQ asks it: writes the table that tests/rules/test_cron.py holds us to.
//
//   node tests/interop/cron_oracle.mjs NODE_MODULES > tests/rules/cron_table.json
//
// A row is [pattern, zone, after, {startDate, endDate}, answer]. An answer is the list of the next fires, each looked
// for after the one before, ending in null where BullMQ gets no date; or {"error": text}. Patterns with H are here only
// where it has one value to choose from.

import { createRequire } from 'node:module';
import { resolve } from 'node:path';

process.env.TZ = 'UTC'; // the text about an unknown zone contains a date in the zone of the process

const require = createRequire(resolve(process.argv[2], 'anything'));
const { defaultRepeatStrategy } = require('bullmq');
const version = name => require(`${name}/package.json`).version;

const good = `
  *|* *|* * *|* * * *|* * * * *|* * * * * *||? ? ? ? ?|5 * * * *|05 * * * *|005 * * * *|*/5 * * * *|5/15 * * * *|5/100 * * * *
  */100 * * * *|0-10 * * * *|10-20/3 * * * *|10-20/30 * * * *|5-5 * * * *|1,2,30 * * * *|1-3,50-52 * * * *|1-5/2,*/20 30 9 * * *
  30 5 * * *|0 9-17 * * 1-5|*/10 8-18/2 * * *|0 */7 * * *|0 0,12 * * *|59 23 31 12 *|15 14 1 * *|0 22 * * 1-5|23 0-20/2 * * *
  0 0 1 1 *|0 0 29 2 *|0 0 29-31 2 *|0 0 31 * *|0 0 30 4,6,9,11 *|0 0 31 2,4,6 *|0 0 1,15 * *|0 0 1/10 * *|0 0 ?/2 * *|0 0 */2 * *
  0 0 L * *|0 0 L 2 *|0 0 1L * *|0 0 30L 2 *|0 0 1,L * *|0 0 15,L 2 *|0 0 L,31 * *|0 0 1-31L * *|0 0 *,L * *|0 0 L,30 2 *
  0 0 * * 5L|0 0 * * FRIL|0 0 * * 7L|0 0 * * 8L|0 0 * * 15L|0 0 * * 0L,7L|0 0 * * 1L,3L|0 0 * * 1,3L|0 0 * * 1-3L|0 0 * * 1L-3
  0 0 * * 1L/2|0 0 L 2 1L|0 0 L * 5|0 0 * * JUL|0 0 * * JUL#1|0 0 * * ?L|0 0 * * 1,1L
  0 0 * * MON#2|0 0 * * 1#5|0 0 * * 7#1|0 0 * * 0#1|0 0 * * *#2|0 0 * * ?#2|0 0 * * jan#1|0 0 * * 1#1.5|0 0 * * 1#1e0|0 0 * * 1#0x2
  0 0 * 2 1#5|0 0 13 * 5#2|0 0 L * 1#1
  0 0 * * 0|0 0 * * 7|0 0 * * 00|0 0 * * 007|0 0 * * 0-7|0 0 * * 0-6|0 0 * * 1-7|0 0 * * 5-7|0 0 * * 3-7/2|0 0 * * 7/2|0 0 * * 2/2
  0 0 * * 1/2|0 0 * * */7|0 0 * * */3|0 0 * * 1-5/2|0 0 * * MON-FRI|0 0 * * mon,Wed,FRI|0 0 * * SUN-SAT|0 0 * * TUE,4,sat
  0 0 * JAN,DEC *|0 0 * jan-mar *|0 0 * */5 *|0 0 * 3-11/4 *|0 0 * mon *|0 0 * * feb
  0 0 13 * 5|0 0 */1 * 1|0 0 1-31 * 1|0 0 ? * 1|0 0 13 * ?|0 0 * ? 1|0 0 30 2 5|0 0 30,30,1 2 *|* * 13 * FRI
  0 0 0 1 1 *|15 0 0 * * *|*/20 * * * * *|10-12 59 23 L * *|30,45 30 12 15 6 2|59 59 23 31 12 ?
  @hourly|@daily|@weekly|@monthly|@yearly|@annually|@minutely|@secondly|@weekdays|@weekends
  *-5 * * * *|5* * * * *|1-2-3 * * * *|1-5/1-5 * * * *|1/5-7 * * * *
  H(5-5) * * * *|H(5-5)9 * * * *|0 H(3-3)/2 * * *|0 0 H(31-40) * *|0 0 * H(12-99) *|H(59-70)/2 H(0-0) * * *`;
const odd = [' 5  * * * *  ', '\t5\n*  * * *', '0 0 * * 1\u00a02', '5 * * * *\u2003', '\ufeff0 0 * * 3'];
const bad = `
  * * * * * * *|a * * * *|h * * * *|#comment * * * *|1.5 * * * *|+5 * * * *|0x5 * * * *|1e1 * * * *|0 0 * * 1;2|0 0 LW * *
  0 0 15W * *|0 0 * * 5l|0 0 * * mo|0 0 * * thurs|0 0 * * monday|0 0 * january *|* * * bog *|* * * * bog|@reboot|@HOURLY|@midnight
  @ hourly| @hourly|60 * * * *|* * 60 * * *|0 24 * * *|0 0 0 * *|0 0 32 * *|0 0 * 0 *|0 0 * 13 *|0 0 * * 8|-1 * * * *|1- * * * *
  * * * * mon-|-5 * * * *|-/5 * * * *|1-/5 * * * *|/5 * * * *|5-1 * * * *|50-70 * * * *|70-80 * * * *|50-70/0 * * * *|50-40/0 * * * *
  0 23-1 * * *|0 0 * * FRI-MON|0 0 * * 7-1|0 0 * * SAT-SUN|0 0 * dec-feb *|0 0 * * 6-2/2|*/0 * * * *|5/0 * * * *|*/-1 * * * *
  0-59/0 * * * *|*/ * * * *|*/a * * * *|*/5/5 * * * *|5/-3 * * * *|1,,2 * * * *|,1 * * * *|1, * * * *|, * * * *|0 0 * * ,|1,1 * * * *
  1-5,3 * * * *|0 0 * * SUN,7|0 0 * * 0,7|0 0 * * 1,2,01|0 0 L,L * *|0 0 * * 1L,1L|0 0 * * 5-7/1,6|0 0 L-2 * *|0 0 L/2 * *|0 0 1-L * *
  0 0 L1 * *|0 0 123L * *|0 0 * * L|0 0 * * Fri,L|0 0 * * L5|0 0 * * 123L|0 0 * * L#1|0 0 * * 1#0|0 0 * * 1#6|0 0 * * 1#a|0 0 * * 1#
  0 0 * * #2|0 0 * * 1#2#3|0 0 * * 1#1L|0 0 * * 1,2#3|0 0 * * 1-5#3|0 0 * * */2#1|0 0 * * 1#1,3|0 0 * * 1#-1|0 0 * * 1#2#3,4
  0 0 30 2 *|0 0 31 4 *|0 0 30,31 2 *|0 0 30 feb ?|** * * * *|*5 * * * *|?5 * * * *|H(1-0) * * * *|H/0 * * * *|H(1-5)/0 * * * *
  0 0 H(32-40) * *|H(3-3)x * * * *|x4H(3-3) * * * *|0 0 * * H(1-1)#3|0 0 * H(2-2)x *
  70 0 * bog *|* 99 0 * *|* * 0 99 *|* * 0 1 9|1,1 * * * 9|* * 30,30 4,4 1,1|* * * 4,4 1,1|* * 30 2 1,1|* * 31 2 L|1🎉 * * * *`;
const long = [
  '   ',   'x'.repeat(1025), ' '.repeat(1025), '🎉'.repeat(513), '1,'.repeat(300) + '60 * * * *', '60,' + '1,'.repeat(300) + '1 * * * *',
  '0-59,'.repeat(6) + '1 * * * *', '0-59,'.repeat(5) + '1 * * * *', '1,'.repeat(256) + '1 * * * *', '1,'.repeat(257) + '1 * * * *',
  'H(0-59)/1,'.repeat(5) + '1 * * * *',
];
// Twelve that between them use every rule, for several zones and instants.
const core = `*/7 * * * *|30 5 * * *|0 0 29 2 *|0 0 L * *|0 12 * * 5L|0 0 1 * MON|15 10 * * 2#3|0 0 31 * *|*/30 */6 * * 0|@monthly|59 59 23 * * *|0 0 * 2-4/2 *`;
// Where clocks change: hours before, in and after the change, all hours, many hours, days.
const changing = `0 * * * *|*/15 * * * *|30 0 * * *|0 1 * * *|30 1 * * *|0 2 * * *|30 2 * * *|*/20 2 * * *|0 3 * * *|*/30 1-3 * * *
  15 1,2 * * *|0 0 * * *|59 23 * * *|45 0-22 * * *|45 0-23 * * *|0 */2 * * *|0 12 * * *|0 0 L * *|30 2 * * 0|*/10 * 2 * * *|30 23,0,1 * * *`;
const changes = {
  'America/New_York': [
    '2026-03-07T12:00:00Z', '2026-03-08T06:30:00Z', '2026-03-08T06:59:59.999Z', '2026-03-08T07:00:00Z', '2026-03-08T07:10:00Z',
    '2026-10-31T20:00:00Z', '2026-11-01T05:10:00Z', '2026-11-01T05:59:59Z', '2026-11-01T06:00:00Z', '2026-11-01T06:10:00Z',
  ],
  'Europe/Berlin': ['2026-03-28T12:00:00Z', '2026-03-29T00:59:00Z', '2026-10-24T20:00:00Z', '2026-10-25T00:30:00Z', '2026-10-25T01:00:00Z'],
  'Australia/Lord_Howe': ['2026-10-03T03:00:00Z', '2026-10-03T15:20:00Z', '2026-04-04T03:00:00Z', '2026-04-04T14:45:00Z', '2026-04-04T15:05:00Z'],
  'America/Sao_Paulo': ['2018-11-03T12:00:00Z', '2018-11-04T02:59:00Z', '2018-02-17T12:00:00Z', '2018-02-18T01:30:00Z', '2018-02-18T02:10:00Z'],
  'America/Havana': ['2026-03-07T20:00:00Z', '2026-10-31T20:00:00Z'],
  'Pacific/Apia': ['2011-12-29T12:00:00Z', '2011-12-30T09:59:00Z', '2011-12-30T10:00:00Z'],
  'America/Caracas': ['2007-12-08T12:00:00Z', '2016-04-30T20:00:00Z'],
  'Antarctica/Troll': ['2026-03-28T12:00:00Z', '2026-10-24T20:00:00Z'],
  'Europe/Dublin': ['2026-10-24T20:00:00Z'],
  'Africa/Casablanca': ['2026-02-14T12:00:00Z', '2026-03-21T12:00:00Z'],
};
const zones = [
  '', 'utc', 'UTC', 'gmt', 'local', 'System', 'default', 'utc+3', 'UTC+03:30', 'utc-11:30', 'utc-0:30', 'utc+14:99', 'utc+25', 'utc+', 'utc+100',
  'UTC+3:5', '+03:00', 'gmt+5', 'Z', 'Zulu', 'europe/berlin', 'ASIA/KOLKATA', 'Asia/Calcutta', 'Europe/Kyiv', 'EST5EDT', 'etc/gmt+5', 'Etc/UTC',
  'America/Ciudad_Juarez', 'Antarctica/Troll', 'Nope/Zone', 'Europe', 'Europe/Berlin ', ' Europe/Berlin', '../etc/passwd', '/etc/localtime', 'Factory', 'localtime',
  'posixrules', 'posix/Europe/Berlin', 'right/Europe/Berlin', 'zone.tab', 'Etc/Unknown', 'null', 'Asia/To\u212ayo',
];

const now = Date.parse('2026-11-24T08:06:26.123Z');
const list = text => text.split(/\n {2}|\||\n/).filter((pattern, index) => index > 0 || pattern !== '');
const rows = [];

function answer(pattern, tz, after, options, count) {
  const fires = [];
  try {
    while (fires.length < count && fires.at(-1) !== null) {
      fires.push(defaultRepeatStrategy(fires.at(-1) ?? after, { pattern, tz, ...options }) ?? null);
    }
    return fires.map(written);
  } catch (error) {
    return { error: error.message };
  }
}

/** ISO where Python can read it. */
function written(instant) {
  if (instant === null || instant >= Date.UTC(10000, 0)) return instant;
  return new Date(instant).toISOString().replace('.000Z', 'Z');
}

function ask(pattern, tz, after, count, options = {}) {
  const dates = Object.fromEntries(Object.entries(options).map(([name, instant]) => [name, written(instant)]));
  rows.push([pattern, tz, written(after), dates, answer(pattern, tz, after, options, count)]);
}

for (const pattern of [...list(good), ...odd]) {
  ask(pattern, 'UTC', now, 3);
  ask(pattern, 'America/New_York', Date.parse('2027-12-31T23:59:59.999Z'), 2);
}
for (const pattern of [...list(bad), ...long]) ask(pattern, 'UTC', now, 1);
for (const pattern of core.split('|')) {
  for (const zone of ['UTC', 'Asia/Kathmandu', 'America/St_Johns', 'Pacific/Kiritimati']) {
    for (const day of ['1999-12-31T23:59:59Z', '2028-02-28T12:00:00Z', '2026-04-30T23:30:00Z', '2100-02-28T23:59:59.001Z']) {
      ask(pattern, zone, Date.parse(day), 2);
    }
  }
}
for (const [zone, instants] of Object.entries(changes)) {
  for (const pattern of list(changing)) for (const instant of instants) ask(pattern, zone, Date.parse(instant), 4);
}
for (const zone of zones) ask('30 5 * * *', zone, now, 1);
ask('bog', 'Nope/Zone', now, 1);

const hour = Date.parse('2026-11-24T08:20:00.000Z');
for (const options of [
  { startDate: now + 5000 }, { startDate: now + 86_400_000 }, { startDate: now - 5000 }, { startDate: hour }, { startDate: hour - 1 }, { startDate: hour + 1 },
  { endDate: hour }, { endDate: hour - 1 }, { endDate: hour + 1 }, { endDate: now - 1 }, { endDate: hour + 3_600_000 }, { startDate: 0, endDate: 0 },
  { startDate: now + 5000, endDate: now + 4000 }, { startDate: now - 5000, endDate: now - 4000 }, { startDate: hour, endDate: hour + 3_600_000 },
  { startDate: 253_402_300_800_000 }, { startDate: 1_013_609_203_200_000 }, { startDate: 8_639_999_990_000_000 },
  { startDate: 8_640_000_000_000_001 }, { endDate: 9_000_000_000_000_000 }, { startDate: 9_000_000_000_000_000, endDate: 9_100_000_000_000_000 },
]) {
  ask('20 * * * *', 'UTC', now, 2, options);
  ask('30 2 * * 0', 'Europe/Berlin', now, 2, options);
  ask('* * * * *', 'Nope/Zone', now, 1, options);
}
ask('20 * * * *', 'UTC', now, 2, { startDate: 8_640_000_000_000_000 });
for (const after of [0, 1, -1, 951_782_399_999, 8_640_000_000_000_000, 8_640_000_000_000_001]) {
  ask('20 * * * *', 'UTC', after, 2);
  ask('20 * * * *', 'Nope/Zone', after, 1);
}

const versions = { bullmq: version('bullmq'), 'cron-parser': version('cron-parser'), luxon: version('luxon') };
const lines = rows.map(row => JSON.stringify(row).replace(/[\u007f-\uffff]/g, c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`));
process.stdout.write(`{"versions": ${JSON.stringify(versions)}, "rows": [\n${lines.join(',\n')}\n]}\n`);
