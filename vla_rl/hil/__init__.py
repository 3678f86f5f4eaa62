"""Who has the arm when a person does: devices, the operator's lease, episodes, the desk that a console shows."""
