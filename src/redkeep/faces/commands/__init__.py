"""The faces of the commands. Each module's ``register`` adds its commands to the application."""
