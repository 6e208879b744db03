//! The manual's table of transitions is the code's.

#[cfg(test)]
mod tests {
    use countersign_core::payment::TRANSITIONS;
    use countersign_model::table::markdown;

    const BEGIN: &str = "<!-- transitions: begin (generated from the code; a test compares) -->\n";
    const END: &str = "<!-- transitions: end -->\n";

    #[test]
    fn the_manual_shows_the_codes_table() {
        let manual = include_str!("../../../docs/ledger.md");
        let (_, rest) = manual.split_once(BEGIN).expect("docs/ledger.md has the marker that begins the table");
        let (shown, _) = rest.split_once(END).expect("docs/ledger.md has the marker that ends the table");
        let expected = markdown();
        assert!(shown == expected, "replace what is between the markers in docs/ledger.md with:\n{expected}");
    }

    #[test]
    fn every_rule_has_its_line() {
        let table = markdown();
        assert_eq!(table.lines().count(), TRANSITIONS.len() + 2);
        let unique: std::collections::BTreeSet<_> = table.lines().collect();
        assert_eq!(unique.len(), TRANSITIONS.len() + 2, "two rules read the same");
    }
}
