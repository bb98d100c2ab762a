"""What runs on a machine: daemon, configuration, gateway and command line."""
