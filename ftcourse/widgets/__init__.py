"""The panels of the lessons: one small class, and one panel for each lesson that has one."""
