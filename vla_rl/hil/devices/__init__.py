"""What a person can hold: each says `device.Command`s; what comes by topic is fed by hil_node."""

DEVICES = ("page", "keyboard", "gamepad", "leader", "spacemouse", "twist", "replay")
