"""From records to evidence: store, statistics, verdicts, tables and figures."""
