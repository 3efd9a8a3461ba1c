-- Judges waiting decisions one after the other, so that each sees what those before it took.
-- The arithmetic is that of extauthz/counters/formulas.py, bit by bit; read that first. A function
-- here that has the name of one there does the same (`backlog` is `_backlog`, and so on): `i` is
-- the charge, and a state is edge, count, extra and older; `expires` follows from them, in `keep`.
-- Everything is a whole number below 2^53, times are microseconds since the Unix epoch. Reads and
-- checks come first, writes last: a script that fails has changed nothing.
--
-- KEYS        one for each charge, and one for each remembered answer; all in one hash slot.
--             A key may stand here several times.
-- ARGV[1]     the time (µs); empty for this server's own clock, as always in production.
--             With a time given, keys live an hour longer, because they expire by another clock.
-- ARGV[2]     how long an answer is remembered (µs)
-- then, for each of KEYS, in order:
--   kind      0 fixed window, 1 sliding window, 2 calendar, 3 burst; + 4 when not enforced;
--             8 a remembered answer, and no more numbers follow; + 16 when a hold follows
--   limit, window (µs), cost
--   kind 2    how many bounds, and the bounds (µs), ascending
--   kind 17   the hold (µs)
-- then, for each decision, to the end:
--   what      0 take, 1 look (as take, and charge nothing), 2 give back
--   answer    number of the KEYS that remembers the answer; 0 for none
--   at        give back only: when it was taken (µs); empty for now
--   charges   how many, and their numbers in KEYS
--
-- Returns integers, for each decision:
--   status    0 refused, 1 charged (or given back), 2 the time is in none of a charge's calendar
--             windows, 3 a key holds something that is no counter
--   at        when it was decided (µs)
--   and for status 0 and 1, but not for give back, for each charge:
--   remaining, reset (µs), retry after (µs; 0 when it fits)
--
-- Values, as text but for the log of a sliding window:
--   fixed window, calendar   edge count
--   sliding window           sum, end and count of the newest entry, then end and count of each
--                            other one, oldest first: 7 bytes each, little-endian
--   burst                    arrival fraction limit      (µs; fraction in µs / limit)
--   answer                   status at [remaining reset retry-after]...

local FIXED, SLIDING, CALENDAR, BURST, NOT_ENFORCED, ANSWER, HELD = 0, 1, 2, 3, 4, 8, 16
local LOOK, GIVE_BACK = 1, 2
local REFUSED, CHARGED, OUTSIDE, UNREADABLE = 0, 1, 2, 3
local floor, ceil, max = math.floor, math.ceil, math.max
local match, format, gmatch = string.match, string.format, string.gmatch
local pack, unpack_at, bytes = struct.pack, struct.unpack, string.sub
local tonumber, call = tonumber, redis.call

-- How far (µs) a clock may be set back, beyond a window, before counters are moved along with it.
local SET_BACK = 60000000

-- Of a sliding window's log, and of an entry in it.
local QUANTA, HEAD, PAIR, HEAD_BYTES, PAIR_BYTES = 32, '<I7I7I7', '<I7I7', 21, 14

local now, longer_ms
if ARGV[1] == '' then
  local time = call('TIME')
  now, longer_ms = time[1] * 1000000 + time[2], 0
else
  now, longer_ms = tonumber(ARGV[1]), 3600000
end
local remembered_us = tonumber(ARGV[2])

-- Charges, by number. These are arrays, because a table for each charge takes 6 % more instructions
-- in a call with 32 decisions of two charges, which is when Redis is busy (and 5 % fewer in a call
-- with one).

local key, kind, enforced, limit, window, cost, bounds, hold = {}, {}, {}, {}, {}, {}, {}, {}

-- Counters, by key: what they hold, nil when nothing; `expires_of` only of what is to be written,
-- `edge_before` of what Redis holds. `older_of` is the packed entries before the newest.

local edge_of, count_of, extra_of, older_of, kind_of, edge_before = {}, {}, {}, {}, {}, {}
local answer_of, expires_of, answer_changed, unreadable = {}, {}, {}, {}
local far_ahead = {} -- numbers of charges whose counters end later than they could

local values = call('MGET', unpack(KEYS))
local arg = 3
for i = 1, #KEYS do
  local name, value = KEYS[i], values[i]
  local what = tonumber(ARGV[arg])
  key[i] = name
  if what == ANSWER then
    answer_of[name] = value
    arg = arg + 1
  else
    local held = what >= HELD
    what = what % HELD
    enforced[i] = what < NOT_ENFORCED
    what = what % NOT_ENFORCED
    kind[i], kind_of[name] = what, what
    limit[i], window[i] = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
    cost[i] = tonumber(ARGV[arg + 3])
    arg = arg + 4
    if what == CALENDAR then
      local edges, n = {}, tonumber(ARGV[arg])
      for j = 1, n do
        edges[j] = tonumber(ARGV[arg + j])
      end
      bounds[i] = edges
      arg = arg + n + 1
    end
    hold[i] = 0
    if held then
      hold[i] = tonumber(ARGV[arg])
      arg = arg + 1
    end
    if value and what == SLIDING then
      if edge_of[name] then
        -- It stands here already.
      elseif #value >= HEAD_BYTES and (#value - HEAD_BYTES) % PAIR_BYTES == 0 then
        count_of[name], edge_of[name], extra_of[name] = unpack_at(HEAD, value)
        older_of[name] = bytes(value, HEAD_BYTES + 1)
        if edge_of[name] > now + window[i] + SET_BACK then
          far_ahead[#far_ahead + 1] = i
        end
      else
        unreadable[name] = true
      end
    elseif value and not edge_of[name] then
      local edge, count, extra = match(value, '^(%d+) (%d+) ?(%d*)$')
      if edge then
        edge = tonumber(edge)
        edge_of[name], count_of[name], edge_before[name] = edge, tonumber(count), edge
        extra_of[name] = tonumber(extra) or 0
        local latest = what == CALENDAR and bounds[i][#bounds[i]] or now + window[i] + SET_BACK
        if edge > latest then
          far_ahead[#far_ahead + 1] = i
        end
      else
        unreadable[name] = true
      end
    end
  end
end

local function find_quantum_us(w)
  return ceil(w / QUANTA)
end

-- The end of the window that contains `at`; nil when no calendar window does. Not for BURST.
local function find_edge_us(i, at)
  if kind[i] ~= CALENDAR then
    local w = window[i]
    return at - at % w + w
  end
  local edges = bounds[i]
  if edges[1] and edges[1] <= at then
    for j = 1, #edges do
      if at < edges[j] then
        return edges[j]
      end
    end
  end
  return nil
end

-- BURST counts in microseconds and a fraction of N: `whole + part / N`, 0 <= part < N. That is
-- formulas.py's "microseconds times the limit" in two numbers that each fit a double.

local function times_of(i, n) -- n times W / N
  local w, most = window[i], limit[i]
  local full = floor(n / most)
  n = n - full * most
  local parts = n * (w % most)
  return full * w + n * floor(w / most) + floor(parts / most), parts % most
end

local function backlog(edge, part)
  if edge < now then
    return 0, 0
  end
  return edge - now, part
end

local function burst_state(i, whole, part)
  return now + whole, part, limit[i]
end

local function burst_room(i, edge, part)
  local w, most = window[i], limit[i]
  if most == 0 then
    return 0
  end
  local whole
  whole, part = backlog(edge, part)
  local free, free_part = w - whole, 0
  if part > 0 then
    free, free_part = free - 1, most - part
  end
  if free < 0 then
    return 0
  end
  -- The quotient in doubles is off by a few at most; the exact one is next to it.
  local room = floor((free + free_part / most) / w * most)
  while true do
    local next_whole, next_part = times_of(i, room + 1)
    if next_whole > free or (next_whole == free and next_part > free_part) then
      break
    end
    room = room + 1
  end
  while room > 0 do
    local its_whole, its_part = times_of(i, room)
    if its_whole < free or (its_whole == free and its_part <= free_part) then
      break
    end
    room = room - 1
  end
  return room
end

-- SLIDING: entries are looked at only when they are gone, looked for or given back to.

-- The log without the entries that are gone: end of the newest, sum, count of the newest, others.
local function read_log(i, name)
  local edge, w = edge_of[name], window[i]
  if not edge or edge + w <= now then
    return 0, 0, 0, ''
  end
  local count, older, at = count_of[name], older_of[name], 1
  while at < #older do
    local gone, of_it = unpack_at(PAIR, older, at)
    if gone + w > now then
      break
    end
    count, at = count - of_it, at + PAIR_BYTES
  end
  return edge, count, extra_of[name], at > 1 and bytes(older, at) or older
end

local function read_burst(i, name)
  local edge, most = edge_of[name], limit[i]
  if not edge then
    return now, 0, most
  end
  local part = count_of[name]
  local expires = part > 0 and edge + 1 or edge
  if expires <= now then
    return now, 0, most
  elseif extra_of[name] ~= most then
    return expires, 0, most
  end
  return edge, part, most
end

-- A counter as it stands now (edge, count, extra, older); nil when no calendar window contains now.
local function read_state(i)
  local name = key[i]
  local edge, what = edge_of[name], kind[i]
  if what == SLIDING then
    return read_log(i, name)
  elseif what == BURST then
    return read_burst(i, name)
  end
  local current = find_edge_us(i, now)
  if not current then
    return nil
  elseif edge and edge >= current then
    return edge, count_of[name], extra_of[name]
  end
  return current, 0, 0
end

local function room_in(i, edge, count)
  if kind[i] == BURST then
    return burst_room(i, edge, count)
  end
  return max(0, limit[i] - count)
end

local function reset_us(i, edge, count)
  local what = kind[i]
  if what == BURST then
    if limit[i] == 0 then
      return 0
    end
    local whole, part = backlog(edge, count)
    return part > 0 and whole + 1 or whole
  elseif what == SLIDING then
    return count > 0 and edge + window[i] - now or 0
  end
  return edge - now
end

local function wait_us(i, edge, count, older)
  local what, w = kind[i], window[i]
  if cost[i] > limit[i] then
    local reset = reset_us(i, edge, count)
    return reset ~= 0 and reset or w
  elseif what == BURST then
    local whole, part = backlog(edge, count)
    local more, more_part = times_of(i, cost[i])
    whole, part = whole + more - w, part + more_part
    return whole + ceil(part / limit[i])
  elseif what == SLIDING then
    local missing = count + cost[i] - limit[i]
    for at = 1, #older, PAIR_BYTES do
      local gone, of_it = unpack_at(PAIR, older, at)
      missing = missing - of_it
      if missing <= 0 then
        return gone + w - now
      end
    end
    return edge + w - now
  end
  return edge - now
end

local function keep(name, what, w, edge, count, extra, older)
  edge_of[name], count_of[name], extra_of[name], older_of[name] = edge, count, extra, older
  if what == BURST then
    expires_of[name] = count > 0 and edge + 1 or edge
  else
    expires_of[name] = what == SLIDING and edge + w or edge
  end
end

-- The clock was set back by a lot, or was wrong when this was counted: all of it counts as taken
-- just now. That is written down at once, also by who is refused, so it is over in a window.
for j = 1, #far_ahead do
  local i = far_ahead[j]
  local name, what, w = key[i], kind[i], window[i]
  if what == SLIDING then
    keep(name, what, w, now, count_of[name], count_of[name], '')
  elseif what == BURST then
    keep(name, what, w, now + w, 0, extra_of[name])
  else
    local edge = find_edge_us(i, now)
    if edge then
      keep(name, what, w, edge, count_of[name], 0)
    end
  end
end

local function add_to_log(i, edge, count, extra, older)
  local at = max(now + hold[i], edge)
  count = count + cost[i]
  if at ~= edge and extra > 0 then
    local quantum = 1
    if limit[i] > QUANTA or count > limit[i] then
      quantum = find_quantum_us(window[i])
    end
    if floor(at / quantum) ~= floor(edge / quantum) then
      older, extra = older .. pack(PAIR, edge, extra), 0
    end
  end
  return at, count, extra + cost[i], older
end

-- Keeps the counter after the cost is taken, and returns its state.
local function add_cost(i, edge, count, extra, older)
  local what, w = kind[i], window[i]
  if what == SLIDING then
    edge, count, extra, older = add_to_log(i, edge, count, extra, older)
  elseif what ~= BURST then
    count = count + cost[i]
  elseif limit[i] > 0 then
    local most = limit[i]
    local whole, part = backlog(edge, count)
    local more, more_part = times_of(i, cost[i])
    more, more_part = whole + more, part + more_part
    if more_part >= most then
      more, more_part = more + 1, more_part - most
    end
    if more > w or (more == w and more_part > 0) then
      -- Filled, not overfilled; and what is beyond full already stays.
      if whole < w then
        whole, part = w, 0
      end
    else
      whole, part = more, more_part
    end
    edge, count, extra = burst_state(i, whole, part)
  end
  keep(key[i], what, w, edge, count, extra, older)
  return edge, count, extra, older
end

-- `at` is nil when the time is not known.
local function take_from_log(i, name, w, at)
  local edge, count, extra, older = read_log(i, name)
  local place, found, held = 1, edge, extra
  if at then
    at = at + hold[i]
  end
  while place < #older do
    local gone, of_it = unpack_at(PAIR, older, place)
    if not at or gone >= at then
      found, held = gone, of_it
      break
    end
    place = place + PAIR_BYTES
  end
  if at and (at <= now - w or found < at or found >= at + 2 * find_quantum_us(w)) then
    return
  end
  local back = math.min(cost[i], held)
  count, held = count - back, held - back
  if place < #older then
    local kept = held > 0 and pack(PAIR, found, held) or ''
    older = bytes(older, 1, place - 1) .. kept .. bytes(older, place + PAIR_BYTES)
  elseif held > 0 then
    extra = held
  elseif older == '' then
    edge, count, extra = 0, 0, 0
  else
    edge, extra = unpack_at(PAIR, older, #older - PAIR_BYTES + 1)
    older = bytes(older, 1, -PAIR_BYTES - 1)
  end
  keep(name, SLIDING, w, edge, count, extra, older)
end

-- `at` is nil when the time is not known.
local function take_back(i, at)
  local name, what, w = key[i], kind[i], window[i]
  if what == SLIDING then
    take_from_log(i, name, w, at)
    return
  elseif what == BURST then
    local most = limit[i]
    local edge, count = read_burst(i, name)
    if most == 0 or (not enforced[i] and (not at or edge >= at + w)) then
      return
    end
    at = at or now
    local whole, part = backlog(edge, count)
    local back, back_part = times_of(i, cost[i])
    back = back - max(0, now - at)
    if back >= 0 then
      whole, part = whole - back, part - back_part
      if part < 0 then
        whole, part = whole - 1, part + most
      end
      if whole < 0 then
        whole, part = 0, 0
      end
    end
    keep(name, what, w, burst_state(i, whole, part))
    return
  end
  local edge = edge_of[name]
  if find_edge_us(i, at or now) == edge then
    keep(name, what, w, edge, max(0, count_of[name] - cost[i]), extra_of[name])
  end
end

-- Decisions

local out, length = {}, 0

local function say(number, other)
  out[length + 1], out[length + 2] = number, other
  length = length + 2
end

-- The answer of that key as a list of numbers; nil when there is none, or it is too old.
local function find_answer(name)
  local text = answer_of[name]
  if not text then
    return nil
  end
  local numbers, n = {}, 0
  for number in gmatch(text, '%d+') do
    n = n + 1
    numbers[n] = tonumber(number)
  end
  if n < 2 or numbers[2] <= now - remembered_us then
    return nil
  end
  return numbers
end

local edges, counts, extras, olders, rooms = {}, {}, {}, {}, {}

local function decide(first, n, may_charge)
  local passes = true
  for j = 1, n do
    local i = tonumber(ARGV[first + j])
    if unreadable[key[i]] then
      say(UNREADABLE, now)
      return
    end
    local edge, count, extra, older = read_state(i)
    if not edge then
      say(OUTSIDE, now)
      return
    end
    local room = room_in(i, edge, count)
    edges[j], counts[j], extras[j], olders[j], rooms[j] = edge, count, extra, older, room
    if cost[i] > room and enforced[i] then
      passes = false
    end
  end
  say(passes and CHARGED or REFUSED, now)
  for j = 1, n do
    local i = tonumber(ARGV[first + j])
    local edge, count, extra, older, room = edges[j], counts[j], extras[j], olders[j], rooms[j]
    local exceeded = cost[i] > room
    if passes and may_charge and cost[i] > 0 then
      edge, count, extra, older = add_cost(i, edge, count, extra, older)
      room = exceeded and 0 or room - cost[i]
    end
    out[length + 1], out[length + 2] = room, reset_us(i, edge, count)
    out[length + 3] = exceeded and wait_us(i, edge, count, older) or 0
    length = length + 3
  end
end

local function give_back(first, n, at)
  for j = 1, n do
    local i = tonumber(ARGV[first + j])
    local name = key[i]
    if unreadable[name] then
      return UNREADABLE
    elseif edge_of[name] and kind[i] == CALENDAR and not find_edge_us(i, at or now) then
      return OUTSIDE
    end
  end
  for j = 1, n do
    local i = tonumber(ARGV[first + j])
    if edge_of[key[i]] then
      take_back(i, at)
    end
  end
  return CHARGED
end

while arg <= #ARGV do
  local what, answer = tonumber(ARGV[arg]), key[tonumber(ARGV[arg + 1])]
  local known = answer and find_answer(answer)
  arg = arg + 2
  if what == GIVE_BACK then
    local at = tonumber(ARGV[arg])
    local n = tonumber(ARGV[arg + 1])
    arg = arg + 1
    local status = REFUSED
    if not answer then
      status = give_back(arg, n, at)
    elseif known and known[1] == CHARGED then
      status = give_back(arg, n, known[2])
      if status == CHARGED then
        answer_of[answer], answer_changed[answer] = nil, true
      end
    end
    say(status, now)
    arg = arg + n + 1
  else
    local n = tonumber(ARGV[arg])
    if known then
      for j = 1, #known do
        out[length + j] = known[j]
      end
      length = length + #known
    else
      local from = length + 1
      decide(arg, n, what ~= LOOK)
      if answer and out[from] <= CHARGED then
        local words = {}
        for j = from, length do
          words[#words + 1] = format('%.0f', out[j])
        end
        answer_of[answer], answer_changed[answer] = table.concat(words, ' '), true
      end
    end
    arg = arg + n + 1
  end
end

-- Writes. A key lives until its counter says nothing any more; the milliseconds are rounded up,
-- and one more is added because the clock may have ticked since the script began.

for name, expires in pairs(expires_of) do
  if expires > now then
    local value
    if kind_of[name] == SLIDING then
      value = pack(HEAD, count_of[name], edge_of[name], extra_of[name]) .. older_of[name]
    elseif kind_of[name] == BURST then
      value = format('%.0f %.0f %.0f', edge_of[name], count_of[name], extra_of[name])
    else
      value = format('%.0f %.0f', edge_of[name], count_of[name])
    end
    if edge_before[name] == edge_of[name] and kind_of[name] ~= BURST then
      -- The same window, which ends when it ends.
      call('SET', name, value, 'KEEPTTL')
    else
      local left_ms = floor((expires - now) / 1000) + 2 + longer_ms
      call('SET', name, value, 'PX', format('%.0f', left_ms))
    end
  elseif kind_of[name] == BURST or kind_of[name] == SLIDING then
    call('DEL', name)
  end
end
for name in pairs(answer_changed) do
  local text = answer_of[name]
  if text then
    local left_ms = floor(remembered_us / 1000) + 2 + longer_ms
    call('SET', name, text, 'PX', format('%.0f', left_ms))
  else
    call('DEL', name)
  end
end
return out
