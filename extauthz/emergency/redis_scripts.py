"""The scripts that Redis runs for blocks and revocations, and the revision that they write.

Three keys in one hash slot (``prefix`` is that of the settings):

    prefix{blocks}            hash: id of an entry to {"deny": {...}} or {"revoked": {...}} in JSON
    prefix{blocks}:revision   "counter-nonce.nonce..."; each change adds one to the counter, and a
                              nonce of 8 digits before the others, of which 8 are kept
    prefix{blocks}:confirmed  hash: a process to "revision unix-time": the revision that it has in
                              force, and the time when it said so

Each script gets the three in this order as KEYS.
"""

from __future__ import annotations

import re
from typing import Final

LOOK: Final = """
-- Returns the revision and the number of entries.
return {string.sub(redis.call('GET', KEYS[2]) or '', 1, 100), redis.call('HLEN', KEYS[1])}
"""

SCAN: Final = """
-- ARGV: cursor, about how many entries, longest id, longest value (bytes)
-- Returns the next cursor, and ids and values in turn. What is too long comes shortened or empty.
local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local entries = found[2]
for number = 1, #entries, 2 do
  if #entries[number] > tonumber(ARGV[3]) then
    entries[number] = string.sub(entries[number], 1, tonumber(ARGV[3]) + 1)
    entries[number + 1] = ''
  elseif #entries[number + 1] > tonumber(ARGV[4]) then
    entries[number + 1] = ''
  end
end
return found
"""

MAX_COUNTER_DIGITS: Final = 12
"""Of a revision; a longer one is from elsewhere, and would soon be counted inexactly."""

_REVISION: Final = re.compile(rf"([0-9]{{1,{MAX_COUNTER_DIGITS}}})-([0-9a-f.]+)")

_RAISE: Final = f"""
local function raise(least)
  local said = redis.call('GET', KEYS[2]) or ''
  local counter, nonces = string.match(said, '^(%d+)%-([%x.]+)$')
  if not counter or #counter > {MAX_COUNTER_DIGITS} then counter, nonces = 0, '' end
  counter = tonumber(counter)
  -- What is jumped over has no nonces.
  if counter < least then counter, nonces = least, '' end
  nonces = string.gsub(string.sub(ARGV[1] .. '.' .. nonces, 1, 71), '%.$', '')
  local revision = string.format('%.0f-%s', counter + 1, nonces)
  redis.call('SET', KEYS[2], revision)
  return revision
end
"""

WRITE: Final = (
    _RAISE
    + """
-- ARGV: nonce, most entries, then ids and values in turn; an empty value removes the entry
-- Returns the new revision; an empty text, with nothing changed, where there is no room.
local count = redis.call('HLEN', KEYS[1])
for number = 3, #ARGV, 2 do
  local change = ARGV[number + 1] == '' and -1 or 1
  if redis.call('HEXISTS', KEYS[1], ARGV[number]) == (change < 0 and 1 or 0) then
    count = count + change
  end
end
if count > tonumber(ARGV[2]) and count > redis.call('HLEN', KEYS[1]) then return '' end
for number = 3, #ARGV, 2 do
  if ARGV[number + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[number])
  else
    redis.call('HSET', KEYS[1], ARGV[number], ARGV[number + 1])
  end
end
return raise(0)
"""
)

RESTORE: Final = (
    _RAISE
    + """
-- ARGV: nonce, the caller's counter, then ids and values in turn
-- Adds what is not there. Returns the new revision.
for number = 3, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[number], ARGV[number + 1])
end
return raise(tonumber(ARGV[2]))
"""
)

CONFIRM: Final = """
-- ARGV: the process, its revision, seconds that this is remembered
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. redis.call('TIME')[1])
redis.call('EXPIRE', KEYS[3], ARGV[3])
return 1
"""

CONFIRMED: Final = """
-- Returns this server's time, and processes and what they confirmed, in turn.
local said = redis.call('HLEN', KEYS[3]) > 10000 and {} or redis.call('HGETALL', KEYS[3])
return {redis.call('TIME'), said}
"""


def find_counter(revision: str) -> int:
    """The counter of a revision; 0 when it is not valid."""
    return read_revision(revision)[0]


def read_revision(revision: str) -> tuple[int, list[str]]:
    """The counter and the nonces of a revision, newest first; 0 and none when it is not valid."""
    found = _REVISION.fullmatch(revision)
    return (0, []) if found is None else (int(found[1]), found[2].split("."))
