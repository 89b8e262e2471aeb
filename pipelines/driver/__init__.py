"""The process that starts a training: it names, launches, watches, records and collects it."""
