"""What the lessons measure and calculate: costs, crowds, delays, balancing, capacity."""
