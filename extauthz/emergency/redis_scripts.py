"""The scripts that Redis runs for blocks and revocations.

Three keys in one hash slot (``prefix`` is that of the settings):

    prefix{blocks}            hash: id of an entry to {"deny": {...}} or {"revoked": {...}} in JSON
    prefix{blocks}:revision   "counter-nonce"; another one with each change
    prefix{blocks}:confirmed  hash: a process to "revision unix-time": what it has in force, when it said so

Each script gets the three in this order as KEYS.
"""

from __future__ import annotations

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

_RAISE: Final = """
local function raise(least)
  local counter = tonumber(string.match(redis.call('GET', KEYS[2]) or '', '^(%d+)-')) or 0
  local revision = string.format('%.0f-%s', math.max(counter, least) + 1, ARGV[1])
  redis.call('SET', KEYS[2], revision)
  return revision
end
"""

WRITE: Final = (
    _RAISE
    + """
-- ARGV: nonce, then ids and values in turn; an empty value removes the entry
-- Returns the new revision.
for number = 2, #ARGV, 2 do
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
