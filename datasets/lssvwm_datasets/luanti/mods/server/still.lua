-- A world in which nothing moves but the camera, and which is a function of its seed.

-- Else these are drawn over the picture.
core.get_server_status = function()
    return ""
end
core.send_join_message = function() end

-- What grows, flows, burns and flies.
core.registered_abms = {}
core.registered_lbms = {}
for name, node in pairs(core.registered_nodes) do
    local changed = { on_timer = function() return false end } -- a timer that runs out ends
    for _, key in ipairs({ "tiles", "special_tiles" }) do
        local tiles, found = table.copy(node[key] or {}), false
        for index, tile in pairs(tiles) do
            local animation = type(tile) == "table" and tile.animation
            if animation then
                local picture = tile.name or tile.image
                local size = animation.aspect_w or 16
                tiles[index] = table.copy(tile)
                tiles[index].animation = nil
                tiles[index].name = ("[combine:%dx%d:0,0=%s"):format(size, animation.aspect_h or size, picture)
                found = true
            end
        end
        changed[key] = found and tiles or nil
    end
    if changed.tiles or changed.special_tiles or node.on_timer then
        core.override_item(name, changed)
    end
end

-- Trees come from an unseeded generator: what is likely in one always comes, what is unlikely never does.
local function certain(schematic)
    local whole = core.read_schematic(schematic, {})
    if not whole then
        return schematic
    end
    for _, node in ipairs(whole.data) do
        node.prob = (node.prob or 255) >= 128 and 255 or 0
    end
    for _, slice in ipairs(whole.yslice_prob or {}) do
        slice.prob = (slice.prob or 255) >= 128 and 255 or 0
    end
    return whole
end

local function text_of(value)
    if type(value) ~= "table" then
        return tostring(value)
    end
    local parts = {}
    for key, part in pairs(value) do
        parts[#parts + 1] = tostring(key) .. "=" .. text_of(part)
    end
    table.sort(parts)
    return "{" .. table.concat(parts, ",") .. "}"
end

core.register_on_mods_loaded(function()
    local decorations = {}
    for _, decoration in pairs(core.registered_decorations) do
        local name = decoration.name or ""
        if not (name:find("^butterflies") or name:find("^fireflies")) then
            decorations[#decorations + 1] = { key = text_of(decoration), record = table.copy(decoration) }
        end
    end
    table.sort(decorations, function(one, other)
        return one.key < other.key
    end)
    core.clear_registered_decorations()
    for _, decoration in ipairs(decorations) do
        if decoration.record.schematic then
            decoration.record.schematic = certain(decoration.record.schematic)
        end
        core.register_decoration(decoration.record)
    end
end)

-- A player that is a camera: it floats, carries nothing and shows nothing; the light is that of noon.
function still_player(player)
    local name = player:get_player_name()
    core.set_player_privs(name, { fly = true, noclip = true, fast = true, interact = true })
    player:hud_set_flags({
        hotbar = false, healthbar = false, crosshair = false, wielditem = false, breathbar = false, minimap = false,
        minimap_radar = false, basic_debug = false, chat = false,
    })
    player:set_physics_override({ gravity = 0, speed = 0, jump = 0 })
    player:override_day_night_ratio(1)
    player:set_clouds({ density = 0 })
    player:set_sun({ visible = false, sunrise_visible = false })
    player:set_moon({ visible = false })
    player:set_stars({ visible = false })
    player:set_inventory_formspec("")
end
