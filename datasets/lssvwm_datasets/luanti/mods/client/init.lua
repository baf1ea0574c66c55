-- The client's half of lssvwm's recorder: two squares at the bottom of the picture, right of the server's. The first
-- changes its colour with every picture that is drawn (its number modulo 64); the second is white when all within the
-- viewing range has come; it is looked for only while the view is wide, for loading.

local VIEW = tonumber(core.settings:get("viewing_range")) -- nodes
local BLOCK = 16 -- nodes
local SQUARE = 8 -- pixels
local WIDE = 110 -- degrees

local drawn = 0
local counter, gate

local function colour(number)
    local levels = { number % 4, math.floor(number / 4) % 4, math.floor(number / 16) % 4 }
    return ("blank.png^[noalpha^[colorize:#%02x%02x%02x:255"):format(levels[1] * 85, levels[2] * 85, levels[3] * 85)
end

local function add_square(place)
    return core.localplayer:hud_add({
        hud_elem_type = "image",
        position = { x = 0, y = 1 },
        offset = { x = place * SQUARE, y = 0 },
        alignment = { x = 1, y = -1 },
        scale = { x = SQUARE, y = SQUARE },
        text = colour(0),
    })
end

local function all_has_come()
    local eyes = core.camera:get_pos()
    local reach = math.ceil(VIEW / BLOCK)
    local x0, y0, z0 = math.floor(eyes.x / BLOCK), math.floor(eyes.y / BLOCK), math.floor(eyes.z / BLOCK)
    for x = x0 - reach, x0 + reach do
        for y = y0 - reach, y0 + reach do
            for z = z0 - reach, z0 + reach do
                local middle = { x = x * BLOCK + 8, y = y * BLOCK + 8, z = z * BLOCK + 8 }
                if vector.distance(middle, eyes) < VIEW + 4 and not core.get_node_or_nil(middle) then
                    return false
                end
            end
        end
    end
    return true
end

core.register_globalstep(function()
    if not core.localplayer or not core.camera then
        return
    end
    if not counter then
        counter, gate = add_square(1), add_square(2)
    end
    drawn = drawn + 1
    core.localplayer:hud_change(counter, "text", colour(drawn % 64))
    if core.camera:get_fov().max > WIDE then
        core.localplayer:hud_change(gate, "text", colour(all_has_come() and 63 or 0))
    end
end)
