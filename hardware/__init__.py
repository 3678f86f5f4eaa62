"""Real arms behind the Robot door, teleoperation devices and the arms' descriptions."""
