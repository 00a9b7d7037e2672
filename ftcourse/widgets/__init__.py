"""The panels of the lessons: one small class, and a module for each lesson that has a panel."""
