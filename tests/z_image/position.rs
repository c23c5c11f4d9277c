//! Frequencies at theta 256 against the reference: 367 cases, among them those in which its ramps turn round.

use super::{golden, support::golden::assert_tables};

#[test]
fn every_table_is_the_references() {
    let tables = assert_tables(&golden("expected"));
    assert_eq!(tables.len(), 367);
    let inverted = tables.iter().filter(|table| table.ramp_inverted.is_some_and(|ramps| ramps.contains(&true)));
    assert_eq!(inverted.count(), 26, "ramps that turn round are among them");
}
