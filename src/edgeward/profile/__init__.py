"""What every block of a network costs on a device: measuring and storing."""
