//! Positions: where tokens stand, and the tables of every scaler against the reference's.

use candle_core::Device;
use dype::testing::{
    base::geometry::TokenGrid,
    methods::{DypeSettings, Method, Moment, Side},
    nn::RopeTables,
};

use super::{expected, fixture, support::golden::assert_tables, tiny};

#[test]
fn every_table_is_the_references() {
    let tables = assert_tables(&fixture("expected"));
    assert_eq!(tables.len(), 367);
    assert!(tables.iter().all(|table| table.revision == "2026-02"));
    let turned = tables.iter().filter(|table| table.ramp_inverted.is_some_and(|[beta, _]| beta)).count();
    assert_eq!(turned, 7, "tables whose ramp turned round are among them");
}

#[test]
fn text_runs_along_the_last_axis_and_the_picture_along_two_in_the_middle() {
    let config = tiny().transformer.config;
    let ids = config.position_ids(TokenGrid { height_patches: 11, width_patches: 19 }, 512);
    assert_eq!((ids.tokens(), ids.pairs()), (512 + 209, 24));
    let sides: Vec<_> = ids.axes.iter().map(|axis| (axis.dim, axis.theta, axis.side)).collect();
    let [height, width] = [Some(Side::Height), Some(Side::Width)];
    assert_eq!(sides, [None, height, width, None].map(|side| (12, 2000.0, side)));
}

/// cos and sin of two tokens, repeated for both channels of a pair there; with DyPE the axes of the picture have an amplitude for
/// the text's tokens too.
#[test]
fn the_tables_of_tokens_are_the_references() {
    let (config, golden) = (tiny().transformer.config, expected("transformer"));
    let grid = TokenGrid { height_patches: 11, width_patches: 19 };
    let ids = config.position_ids(grid, 512);
    let rope_ids: Vec<Vec<i32>> = golden["rope_ids"]
        .to_dtype(candle_core::DType::I64)
        .and_then(|ids| ids.to_vec2::<i64>())
        .expect("ids")
        .into_iter()
        .map(|row| row.into_iter().map(|id| id as i32).collect())
        .collect();
    let index = |id: &[i32]| match id {
        [0, 0, 0, text] if *text > 0 => *text as usize,
        [0, row, column, 0] => 512 + *row as usize * 19 + *column as usize,
        other => panic!("no token stands at {other:?}"),
    };
    for (name, scaler) in
        [("native", Method::BASE.scaler(None)), ("stretched", Method::YARN.scaler(Some(DypeSettings::default())))]
    {
        let tables = RopeTables::new(&ids, 8, &*scaler, &Moment::at(0.7), &Device::Cpu).expect("tables");
        for (row, id) in rope_ids.iter().enumerate() {
            for (found, part) in [(&tables.cos, "cos"), (&tables.sin, "sin")] {
                let found: Vec<f32> = found.get(index(id)).and_then(|row| row.to_vec1()).expect("a row");
                let expected: Vec<f32> =
                    golden[&format!("{name}.rope_{part}")].get(row).and_then(|row| row.to_vec1()).expect("a row");
                for (pair, found) in found.iter().enumerate() {
                    assert!((found - expected[2 * pair]).abs() < 2e-6, "{name} {part} {id:?} {pair}");
                    assert_eq!(expected[2 * pair], expected[2 * pair + 1]);
                }
            }
        }
    }
}
