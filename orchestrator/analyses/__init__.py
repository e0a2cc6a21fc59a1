"""What is measured about a victim beside its attacks: which layers a task depends on."""
