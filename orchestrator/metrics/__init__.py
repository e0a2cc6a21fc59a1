"""Metrics: functions of tensors, and the names, units and directions that tables give them."""
