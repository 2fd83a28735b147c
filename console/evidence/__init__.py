"""Evidence: a run's tables, pictures, config, audit log and a summary in one folder, to argue from or to hand on."""
