use image::Rgb;
use proptest::prelude::*;

use super::*;

/// Red counts columns, green counts rows.
fn numbered(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x % 256) as u8, (y % 256) as u8, 77]))
}

fn tile(label: &str, width: u32, height: u32) -> Tile {
    Tile::new(label, None, &numbered(width, height), &SheetOptions::default()).expect("a tile")
}

#[test]
fn a_large_picture_shows_its_middle_pixel_for_pixel() {
    let tile = tile("a", 2048, 1024);
    assert_eq!((tile.whole.width(), tile.whole.height()), (512, 256));
    assert_eq!((tile.region.width(), tile.region.height()), (512, 512));
    assert_eq!(tile.geometry.corner, [768, 256]);
    assert_eq!(tile.region.get_pixel(5, 9), numbered(2048, 1024).get_pixel(773, 265));
}

#[test]
fn a_small_picture_is_magnified_by_whole_pixels() {
    let tile = tile("a", 128, 128);
    assert_eq!((tile.geometry.column, tile.geometry.zoom, tile.geometry.region), (320, 5, [64, 64]));
    assert_eq!((tile.whole.width(), tile.region.width()), (320, 320));
    let pixel = numbered(128, 128).get_pixel(32, 33).0;
    assert_eq!(tile.region.get_pixel(0, 5).0, pixel);
    assert_eq!(tile.region.get_pixel(4, 9).0, pixel);
}

#[test]
fn a_picture_of_one_pixel_fills_its_column() {
    let tile = tile("a", 1, 1);
    assert_eq!((tile.geometry.column, tile.geometry.zoom, tile.region.width()), (320, 320, 320));
}

#[test]
fn the_focus_stays_within_the_picture() {
    for (y, x, corner) in
        [(0.0, 0.0, [0, 0]), (1.0, 1.0, [1536, 1536]), (0.25, f64::NAN, [0, 256]), (9.0, -1.0, [0, 1536])]
    {
        let geometry = TileGeometry::of([2048, 2048], Focus { y, x });
        assert_eq!(geometry.corner, corner, "{y} {x}");
    }
}

#[test]
fn pictures_are_side_by_side_under_their_labels() {
    let tiles = [tile("base", 600, 300), tile("yarn", 600, 300)];
    let options = SheetOptions::default();
    let layout = Layout::new(&tiles, &options);
    let image = sheet(&tiles, &options).expect("a sheet");
    assert_eq!([image.width(), image.height()], layout.size);
    for index in 0..2 {
        let x = layout.left + index * (layout.geometry.column + layout.gap);
        assert_eq!(image.get_pixel(x, layout.whole_y), tiles[0].whole.get_pixel(0, 0));
        assert_eq!(image.get_pixel(x + 7, layout.region_y + 3), tiles[0].region.get_pixel(7, 3));
        let label = imageops::crop_imm(&image, x, 0, layout.geometry.column, layout.whole_y).to_image();
        assert!(label.pixels().filter(|pixel| pixel.0[0] > 200).count() > 30, "a label");
    }
    assert_eq!(image.get_pixel(0, 0).0, [22, 22, 24]);
}

#[test]
fn a_title_and_details_make_room_for_themselves() {
    let plain = sheet(&[tile("a", 300, 300)], &SheetOptions::default()).expect("a sheet");
    let options = SheetOptions { title: Some("x".into()), ..SheetOptions::default() };
    let detailed = Tile::new("a", Some("3 s"), &numbered(300, 300), &options).expect("a tile");
    let full = sheet(&[detailed], &options).expect("a sheet");
    assert!(full.height() >= plain.height() + 25, "{} {}", full.height(), plain.height());
    assert_eq!(full.width(), plain.width());
}

#[test]
fn pictures_that_do_not_go_together_are_refused() {
    assert!(sheet(&[], &SheetOptions::default()).is_err());
    let error = sheet(&[tile("a", 64, 64), tile("b", 64, 65)], &SheetOptions::default()).expect_err("two sizes");
    assert!(error.to_string().contains("b (64 x 65 px)"), "{error}");
    let options = SheetOptions::default();
    assert!(Tile::new("a", None, &RgbImage::new(0, 5), &options).is_err());
    assert!(Tile::new("a", None, &RgbImage::new(2, 5000), &options).is_err());
}

#[test]
fn long_texts_end_in_dots() {
    let long = "a very long prompt ".repeat(20);
    let shown = fitting(&long, 20.0, 300.0);
    assert!(shown.ends_with("...") && font::text_width(&shown) * 20.0 / 6.0 <= 300.0, "{shown}");
    assert_eq!(fitting("short", 20.0, 300.0), "short");
}

proptest! {
    #[test]
    fn every_size_gives_a_region_within_the_picture(width in 1u32..9000, height in 1u32..9000, y in -0.5..1.5, x in -0.5..1.5) {
        let geometry = TileGeometry::of([width, height], Focus { y, x });
        for axis in 0..2 {
            prop_assert!(geometry.region[axis] >= 1);
            prop_assert!(geometry.corner[axis] + geometry.region[axis] <= geometry.picture[axis]);
        }
        prop_assert_eq!(geometry.region[0] * geometry.zoom, geometry.column);
        prop_assert!((128..=COLUMN_PX).contains(&geometry.column));
        prop_assert!(width < 2 || 2 * geometry.region[0] <= width.max(2));
    }
}
