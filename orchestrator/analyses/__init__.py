"""Analyses of a target model beside its attacks: which layers a task depends on."""
