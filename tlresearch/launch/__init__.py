"""From an experiment's cells to records: the plan, and who works it off."""
