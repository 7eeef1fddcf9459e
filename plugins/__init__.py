"""What ships with the gateway; one file per plugin, the file's name is the plugin's name."""
