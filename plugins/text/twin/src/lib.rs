//! Nothing but its test: one rule set in three languages answers alike.
