-- Applies what the events of one partition add to one shard, once or not at all. Everything is read and computed first
-- and written last, because Redis keeps the writes of a script that fails half-way.
--
-- KEYS[1]   the shard: "half_life", "visits", "newest", and a guard for each source
-- KEYS[2..] the anchors: field "" is landmark and visits, every other field is a candidate's counts
-- ARGV      guard's field, start, end, half-life, landmark, visits, most pairs, pairs after a trim, idle ms, move after,
--           newest time of an event; then for each anchor: visits, number of pairs, and for each pair its packed counts
--           followed by the candidate, as one: half as many arguments
--
-- Packed counts are a mask of the metrics that were counted (16 bits), and a double for each, all little-endian.

local METRICS, EXPECTED = 13, 1
local AT_ONCE = 2000  -- values that are unpacked to arguments: Lua's stack holds 8000

local guard_field, start, finish, half_life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local landmark, visits = tonumber(ARGV[5]), tonumber(ARGV[6])
local most, after_trim, idle, move_after = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local newest = ARGV[11]
local ldexp, spack, sunpack = math.ldexp, struct.pack, struct.unpack

local held = redis.call('HMGET', KEYS[1], guard_field, 'half_life', 'visits', 'newest')
local guard = held[1] or '0'
if held[2] and held[2] ~= half_life then return {'half_life', held[2]} end
if tonumber(guard) >= finish then return {'duplicate', guard} end
if tonumber(guard) ~= start then return {'mismatch', guard} end

-- Of each mask that comes up: its metrics in order, and the format of its counts.
local metrics_of = {}
local function layout(mask)
  local known = metrics_of[mask]
  if known then return known end
  known = {format = '<H'}
  local rest = mask
  for metric = 0, METRICS - 1 do
    if rest % 2 == 1 then
      known[#known + 1] = metric
      known.format = known.format .. 'd'
    end
    rest = math.floor(rest / 2)
  end
  known.size = 2 + 8 * #known
  metrics_of[mask] = known
  return known
end

-- For two masks: their union, its format, and where each of its counts stands in the first and in the second.
local merges = {}
local function plan(one, other)
  local name = one * 65536 + other
  local known = merges[name]
  if known then return known end
  local from_one, from_other, mask = {}, {}, 0
  for place, metric in ipairs(layout(one)) do from_one[metric] = place + 1 end
  for place, metric in ipairs(layout(other)) do from_other[metric] = place + 1 end
  known = {}
  for metric = 0, METRICS - 1 do
    if from_one[metric] or from_other[metric] then
      mask = mask + ldexp(1, metric)
      known[#known + 1] = {from_one[metric] or 0, from_other[metric] or 0}
    end
  end
  known.mask, known.format = mask, layout(mask).format
  merges[name] = known
  return known
end

-- Two packed counts, each times a power of two, as one.
local function add(one, keep, other, scale)
  local known = plan(sunpack('<H', one), (sunpack('<H', other)))
  local first = {sunpack(layout(sunpack('<H', one)).format, one)}
  local second = {sunpack(layout(sunpack('<H', other)).format, other)}
  local sums = {known.mask}
  for place = 1, #known do
    local at = known[place]
    sums[place + 1] = (first[at[1]] or 0) * keep + (second[at[2]] or 0) * scale
  end
  return spack(known.format, unpack(sums))
end

-- Packed counts times a power of two; nothing where nothing is left of them.
local function rescale(packed, factor)
  local known = layout(sunpack('<H', packed))
  local counts, left = {sunpack(known.format, packed)}, 0
  for place = 2, #known + 1 do
    counts[place] = counts[place] * factor
    left = left + counts[place]
  end
  if left == 0 then return nil end
  return spack(known.format, unpack(counts, 1, #known + 1))
end

local function strength(packed)
  local known = layout(sunpack('<H', packed))
  local counts, total = {sunpack(known.format, packed)}, 0
  for place = 1, #known do
    if known[place] ~= EXPECTED then total = total + counts[place + 1] end
  end
  return total
end

-- A total on its landmark, with the batch's added: the packed total, the two factors, and whether the landmark moved.
local function add_total(packed, added)
  if not packed then return spack('<i4d', landmark, added), 1, 1, false end
  local at, total = sunpack('<i4d', packed)
  if landmark - at > move_after then
    local factor = ldexp(1, at - landmark)
    return spack('<i4d', landmark, total * factor + added), factor, 1, true
  end
  local factor = ldexp(1, landmark - at)
  return spack('<i4d', at, total + added * factor), 1, factor, false
end

local argument = 12
local writes = {}
for number = 2, #KEYS do
  local key, added, pairs_added = KEYS[number], tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  local first = argument + 2
  argument = first + pairs_added
  local ids, counts = {}, {}
  for place = 1, pairs_added do
    local both = ARGV[first + place - 1]
    local size = layout(sunpack('<H', both)).size
    ids[place], counts[place] = both:sub(size + 1), both:sub(1, size)
  end
  local head, keep, scale, moved = add_total(redis.call('HGET', key, ''), added)
  local held_pairs = math.max(redis.call('HLEN', key) - 1, 0)
  local all = moved or held_pairs + pairs_added > most
  local old, new, removed = {}, {}, {}
  if all then
    local fields = redis.call('HGETALL', key)
    for place = 1, #fields, 2 do
      if fields[place] ~= '' then old[fields[place]] = fields[place + 1] end
    end
  else
    for from = 1, #ids, AT_ONCE do
      local last = math.min(from + AT_ONCE - 1, #ids)
      local values = redis.call('HMGET', key, unpack(ids, from, last))
      for place = from, last do
        if values[place - from + 1] then old[ids[place]] = values[place - from + 1] end
      end
    end
  end
  for place, id in ipairs(ids) do
    local before, packed = old[id], counts[place]
    if before then
      new[id] = add(before, keep, packed, scale)
    elseif scale == 1 then
      new[id] = packed
    else
      new[id] = rescale(packed, scale)
    end
  end
  if moved then
    for id, packed in pairs(old) do
      if not new[id] then
        new[id] = rescale(packed, keep)
        if not new[id] then removed[#removed + 1] = id end
      end
    end
    for _, id in ipairs(removed) do old[id] = nil end
  end
  if all then
    local ranked = {}
    for id, packed in pairs(new) do ranked[#ranked + 1] = {id, strength(packed)} end
    for id, packed in pairs(old) do
      if not new[id] then ranked[#ranked + 1] = {id, strength(packed)} end
    end
    if #ranked > most then
      table.sort(ranked, function(a, b)
        if a[2] ~= b[2] then return a[2] > b[2] end
        return a[1] < b[1]
      end)
      for place = after_trim + 1, #ranked do
        local id = ranked[place][1]
        new[id] = nil
        if old[id] then removed[#removed + 1] = id end
      end
    end
  end
  writes[#writes + 1] = {key, head, new, removed}
end
local total = add_total(held[3], visits)
if held[4] and tonumber(held[4]) > tonumber(newest) then newest = held[4] end

for _, write in ipairs(writes) do
  local key, fields = write[1], {'', write[2]}
  for id, packed in pairs(write[3]) do
    fields[#fields + 1] = id
    fields[#fields + 1] = packed
  end
  for from = 1, #fields, AT_ONCE do
    redis.call('HSET', key, unpack(fields, from, math.min(from + AT_ONCE - 1, #fields)))
  end
  for from = 1, #write[4], AT_ONCE do
    redis.call('HDEL', key, unpack(write[4], from, math.min(from + AT_ONCE - 1, #write[4])))
  end
  redis.call('PEXPIRE', key, idle)
end
redis.call('HSET', KEYS[1], guard_field, ARGV[3], 'half_life', half_life, 'visits', total, 'newest', newest)
return {'applied', ARGV[3]}
