-- Judges waiting decisions one after the other, so that each sees what those before it took.
-- The arithmetic is that of formulas.py, bit by bit; read that first. Everything is a whole
-- number below 2^53, times are microseconds since the Unix epoch. Reads and checks come first,
-- writes last: a script that fails has changed nothing.
--
-- KEYS        one for each charge, and one for each remembered answer; all in one hash slot.
--             A key may stand here several times.
-- ARGV[1]     the time (µs); empty for this server's own clock, as always in production.
--             With a time given, keys live an hour longer, because they expire by another clock.
-- ARGV[2]     how long an answer is remembered (µs)
-- then, for each of KEYS, in order:
--   kind      0 fixed window, 1 sliding window, 2 calendar, 3 burst; + 4 when not enforced;
--             8 a remembered answer, and no more numbers follow
--   limit, window (µs), cost
--   kind 2    how many bounds, and the bounds (µs), ascending
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
-- Values, as text:
--   fixed window, calendar   edge count
--   sliding window           edge count count-of-the-window-before
--   burst                    arrival fraction limit      (µs; fraction in µs / limit)
--   answer                   status at [remaining reset retry-after]...

local FIXED, SLIDING, CALENDAR, BURST, NOT_ENFORCED, ANSWER = 0, 1, 2, 3, 4, 8
local LOOK, GIVE_BACK = 1, 2
local REFUSED, CHARGED, OUTSIDE, UNREADABLE = 0, 1, 2, 3
local floor, ceil, max = math.floor, math.ceil, math.max
local match, format, gmatch = string.match, string.format, string.gmatch
local tonumber, call = tonumber, redis.call

local now, longer_ms
if ARGV[1] == '' then
  local time = call('TIME')
  now, longer_ms = time[1] * 1000000 + time[2], 0
else
  now, longer_ms = tonumber(ARGV[1]), 3600000
end
local remembered_us = tonumber(ARGV[2])

-- Charges, by number

local key, kind, enforced, limit, window, cost, bounds = {}, {}, {}, {}, {}, {}, {}

-- Counters, by key: what they hold, nil when nothing; `expires_of` only of what is to be written,
-- `edge_before` of what Redis holds.

local edge_of, count_of, extra_of, unreadable, kind_of, edge_before = {}, {}, {}, {}, {}, {}
local answer_of, expires_of, answer_changed = {}, {}, {}

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
    if value and not edge_of[name] then
      local edge, count, extra = match(value, '^(%d+) (%d+) ?(%d*)$')
      if edge then
        edge = tonumber(edge)
        edge_of[name], count_of[name], edge_before[name] = edge, tonumber(count), edge
        extra_of[name] = tonumber(extra) or 0
      else
        unreadable[name] = true
      end
    end
  end
end

-- The end of the window that contains `at`; nil when no calendar window does. Not for BURST.
local function find_edge(i, at)
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

local function backlog_of(edge, part)
  if edge < now then
    return 0, 0
  end
  return edge - now, part
end

local function burst_room(i, edge, part)
  local w, most = window[i], limit[i]
  if most == 0 then
    return 0
  end
  local whole
  whole, part = backlog_of(edge, part)
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

local function weigh(before, w, elapsed)
  return ceil(before * ((w - elapsed) / w))
end

local function fits_from(before, room, w)
  if before <= room then
    return 0
  end
  local elapsed = w - floor(w * room / before)
  while weigh(before, w, elapsed) > room do
    elapsed = elapsed + 1
  end
  while elapsed > 0 and weigh(before, w, elapsed - 1) <= room do
    elapsed = elapsed - 1
  end
  return elapsed
end

-- A counter as it stands now (edge, count, extra); nil when no calendar window contains now.
local function read_state(i)
  local name = key[i]
  local edge, what = edge_of[name], kind[i]
  if what == BURST then
    local most = limit[i]
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
  local current = find_edge(i, now)
  if not current then
    return nil
  elseif edge then
    if edge >= current then
      return edge, count_of[name], extra_of[name]
    elseif what == SLIDING and edge + window[i] == current then
      return current, 0, count_of[name]
    end
  end
  return current, 0, 0
end

local function room_in(i, edge, count, extra)
  local what = kind[i]
  if what == BURST then
    return burst_room(i, edge, count)
  elseif what == SLIDING and extra > 0 then
    count = count + weigh(extra, window[i], now - edge + window[i])
  end
  return max(0, limit[i] - count)
end

local function reset_after(i, edge, count, extra)
  local what = kind[i]
  if what == BURST then
    if limit[i] == 0 then
      return 0
    end
    local whole, part = backlog_of(edge, count)
    return part > 0 and whole + 1 or whole
  elseif what == SLIDING then
    if count > 0 then
      return edge + window[i] - now
    end
    return extra > 0 and edge - now or 0
  end
  return edge - now
end

local function wait_for(i, edge, count, extra)
  local what, w = kind[i], window[i]
  if cost[i] > limit[i] then
    local reset = reset_after(i, edge, count, extra)
    return reset ~= 0 and reset or w
  elseif what == BURST then
    local whole, part = backlog_of(edge, count)
    local more, more_part = times_of(i, cost[i])
    whole, part = whole + more - w, part + more_part
    return whole + ceil(part / limit[i])
  elseif what == SLIDING then
    local room = limit[i] - cost[i]
    if room >= count then
      return edge - w + fits_from(extra, room - count, w) - now
    end
    return edge + fits_from(count, room, w) - now
  end
  return edge - now
end

local function keep(name, what, w, edge, count, extra)
  edge_of[name], count_of[name], extra_of[name] = edge, count, extra
  if what == BURST then
    expires_of[name] = count > 0 and edge + 1 or edge
  else
    expires_of[name] = what == SLIDING and edge + w or edge
  end
end

-- Takes the cost; gives the counter after it.
local function charge(i, edge, count, extra)
  local what, w = kind[i], window[i]
  if what ~= BURST then
    count = count + cost[i]
  elseif limit[i] > 0 then
    local most = limit[i]
    local whole, part = backlog_of(edge, count)
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
    edge, count = now + whole, part
  end
  keep(key[i], what, w, edge, count, extra)
  return edge, count, extra
end

local function take_back(i, at)
  local name, what, w = key[i], kind[i], window[i]
  if what == BURST then
    local most = limit[i]
    if most == 0 then
      return
    end
    local edge, count = read_state(i)
    local whole, part = backlog_of(edge, count)
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
    keep(name, what, w, now + whole, part, most)
    return
  end
  local taken, edge = find_edge(i, at), edge_of[name]
  if taken == edge then
    keep(name, what, w, edge, max(0, count_of[name] - cost[i]), extra_of[name])
  elseif what == SLIDING and taken + w == edge then
    keep(name, what, w, edge, count_of[name], max(0, extra_of[name] - cost[i]))
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

local edges, counts, extras, rooms = {}, {}, {}, {}

local function decide(first, n, may_charge)
  local passes = true
  for j = 1, n do
    local i = tonumber(ARGV[first + j])
    if unreadable[key[i]] then
      say(UNREADABLE, now)
      return
    end
    local edge, count, extra = read_state(i)
    if not edge then
      say(OUTSIDE, now)
      return
    end
    local room = room_in(i, edge, count, extra)
    edges[j], counts[j], extras[j], rooms[j] = edge, count, extra, room
    if cost[i] > room and enforced[i] then
      passes = false
    end
  end
  say(passes and CHARGED or REFUSED, now)
  for j = 1, n do
    local i = tonumber(ARGV[first + j])
    local edge, count, extra, room = edges[j], counts[j], extras[j], rooms[j]
    local exceeded = cost[i] > room
    if passes and may_charge and cost[i] > 0 then
      edge, count, extra = charge(i, edge, count, extra)
      room = exceeded and 0 or room - cost[i]
    end
    out[length + 1], out[length + 2] = room, reset_after(i, edge, count, extra)
    out[length + 3] = exceeded and wait_for(i, edge, count, extra) or 0
    length = length + 3
  end
end

local function give_back(first, n, at)
  for j = 1, n do
    local i = tonumber(ARGV[first + j])
    local name = key[i]
    if unreadable[name] then
      return UNREADABLE
    elseif edge_of[name] and kind[i] ~= BURST and not find_edge(i, at) then
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
    local at = tonumber(ARGV[arg]) or now
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
    if kind_of[name] == SLIDING or kind_of[name] == BURST then
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
  elseif kind_of[name] == BURST then
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
