"""The commands for labels of which only a part is drawn."""
