-- The client's half of lssvwm's recorder: squares in the margins of the picture, each of one of 64 colours. At the bottom,
-- from the left: the number of this picture (2 squares), how wide the view was in the picture before this one (1: black
-- as usual, white while loading when all within the viewing range has come, grey before that), and where the camera was
-- in it: x, y, z in nodes (3 x 3). At the top the number once more, for a picture is whole when both agree, and the
-- direction it looked in (3 x 2). Further to the right, larger windows do not show squares as they are.

local VIEW = tonumber(core.settings:get("viewing_range")) -- nodes
local BLOCK = 16 -- nodes
local SQUARE = 6 -- pixels
local WIDE = 110 -- degrees
local NODE = 4096 -- steps of a place, modulo 64 nodes
local UNIT, MIDDLE = 2000, 2048 -- steps of a direction

local drawn = 0
local top, bottom = {}, {}

local function colour(number)
    local levels = { number % 4, math.floor(number / 4) % 4, math.floor(number / 16) % 4 }
    return ("blank.png^[noalpha^[colorize:#%02x%02x%02x:255"):format(levels[1] * 85, levels[2] * 85, levels[3] * 85)
end

local function add_square(place, edge)
    return core.localplayer:hud_add({
        hud_elem_type = "image",
        position = { x = 0, y = edge },
        offset = { x = place * SQUARE, y = 0 },
        alignment = { x = 1, y = edge == 1 and -1 or 1 },
        scale = { x = SQUARE, y = SQUARE },
        text = colour(0),
    })
end

local function show(squares, first, count, number)
    for place = first, first + count - 1 do
        core.localplayer:hud_change(squares[place], "text", colour(number % 64))
        number = math.floor(number / 64)
    end
end

local function all_has_come(eyes)
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
    if #bottom == 0 then
        for place = 1, 12 do
            bottom[place] = add_square(place - 1, 1)
        end
        for place = 1, 8 do
            top[place] = add_square(place - 1, 0)
        end
    end
    drawn = (drawn + 1) % 4096
    show(top, 1, 2, drawn)
    show(bottom, 1, 2, drawn)
    local eyes, ahead = core.camera:get_pos(), core.camera:get_look_dir()
    local wide = core.camera:get_fov().max > WIDE
    core.localplayer:hud_change(bottom[3], "text", colour(not wide and 0 or all_has_come(eyes) and 63 or 42))
    for number, axis in ipairs({ "x", "y", "z" }) do
        show(bottom, 1 + 3 * number, 3, math.floor(eyes[axis] * NODE + 0.5) % (64 * NODE))
        show(top, 1 + 2 * number, 2, math.floor(ahead[axis] * UNIT + 0.5) + MIDDLE)
    end
end)
