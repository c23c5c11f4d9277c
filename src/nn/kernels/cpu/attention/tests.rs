use half::bf16;

use super::{
    super::{pairs, tiles::Unit},
    *,
};

fn wave(count: usize, phase: f32, size: f32) -> Vec<f32> {
    (0..count).map(|i| size * (i as f32 * 0.37 + phase).sin() * (i as f32 * 0.011).cos()).collect()
}

/// The same in f64 with all scores of a query at once.
fn plain(q: &[f32], k: &[f32], v: &[f32], shape: Shape, bias: impl Fn(usize, usize, usize) -> f64) -> Vec<f32> {
    let Shape { heads, dim, queries, keys } = shape;
    let mut out = vec![0.0; heads * queries * dim];
    for (head, query) in (0..heads).flat_map(|head| (0..queries).map(move |query| (head, query))) {
        let q = &q[(head * queries + query) * dim..][..dim];
        let score = |key: usize| -> f64 {
            let k = &k[(head * keys + key) * dim..][..dim];
            let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            dot / (dim as f64).sqrt() + bias(head, query, key)
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let maximum = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
        let total: f64 = weights.iter().sum();
        for channel in 0..dim {
            let value = |key: usize| f64::from(v[(head * keys + key) * dim + channel]);
            let sum: f64 = weights.iter().enumerate().map(|(key, weight)| weight * value(key)).sum();
            out[query * heads * dim + head * dim + channel] = (sum / total) as f32;
        }
    }
    out
}

fn inputs(shape: Shape) -> [Vec<f32>; 3] {
    let Shape { heads, dim, queries, keys } = shape;
    // Large scores, so that the running maximum rises many times.
    let [q, k] = [wave(heads * queries * dim, 0.1, 4.0), wave(heads * keys * dim, 1.3, 4.0)];
    [q, k, wave(heads * keys * dim, 2.2, 1.0)]
}

fn found(q: &[f32], pieces: &[Piece<'_>], shape: Shape, bias: Bias<'_>) -> Vec<f32> {
    let scale = std::f32::consts::LOG2_E / (shape.dim as f32).sqrt();
    let mut out = vec![f32::NAN; q.len()];
    attention(q, pieces, &Attention { shape, scale, bias, query_rows: 128, rounds: false }, &mut out);
    out
}

fn assert_near(found: &[f32], expected: &[f32]) {
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "off by {worst:e}");
}

#[test]
fn keys_in_pieces_give_the_softmax_of_the_whole() {
    // One wide head as a decoder's, keys band by band, none of them whole tiles.
    let shape = Shape { heads: 1, dim: 200, queries: 150, keys: 1500 };
    let [q, k, v] = inputs(shape);
    let piece = |from: usize, to: usize| {
        let numbers = from * shape.dim..to * shape.dim;
        Piece { k: &k[numbers.clone()], v: &v[numbers] }
    };
    let pieces = [piece(0, 700), piece(700, 733), piece(733, 1500)];
    assert_near(&found(&q, &pieces, shape, Bias::None), &plain(&q, &k, &v, shape, |_, _, _| 0.0));
}

#[test]
fn a_bias_of_runs_is_added_to_every_query_of_every_head() {
    let shape = Shape { heads: 2, dim: 16, queries: 70, keys: 1300 };
    let [q, k, v] = inputs(shape);
    // Runs that begin and end within tiles; keys beyond the last run have none.
    let runs = [(300, 1.5), (400, 0.0), (100, -2.0), (7, f32::NEG_INFINITY)];
    let bias = |_, _, key| match key {
        0..300 => 1.5,
        700..800 => -2.0,
        800..807 => f64::NEG_INFINITY,
        _ => 0.0,
    };
    let pieces = [Piece { k: &k, v: &v }];
    assert_near(&found(&q, &pieces, shape, Bias::Runs(&runs)), &plain(&q, &k, &v, shape, bias));
}

#[test]
fn a_bias_of_scores_may_hide_what_comes_later() {
    let shape = Shape { heads: 3, dim: 8, queries: 130, keys: 700 };
    let [q, k, v] = inputs(shape);
    let pieces = [Piece { k: &k, v: &v }];
    // The first tile is hidden from most queries altogether.
    let causal = |query: usize, key: usize| if key + 10 >= query * 5 { 0.0 } else { f32::NEG_INFINITY };
    let shared: Vec<f32> = (0..130).flat_map(|query| (0..700).map(move |key| causal(query, key))).collect();
    let expected = plain(&q, &k, &v, shape, |_, query, key| f64::from(causal(query, key)));
    assert_near(&found(&q, &pieces, shape, Bias::Scores(&shared)), &expected);
    let each = wave(3 * 130 * 700, 0.7, 3.0);
    let expected = plain(&q, &k, &v, shape, |head, query, key| f64::from(each[(head * 130 + query) * 700 + key]));
    assert_near(&found(&q, &pieces, shape, Bias::Scores(&each)), &expected);
}

/// Heads of q in threes share one of k and v, and look at nothing after themselves, nor at padding.
#[test]
fn grouped_heads_look_back_and_never_at_padding() {
    for (queries, seen) in [(700, 700), (700, 630), (64, 1), (600, 5), (1, 1)] {
        let shape = Shape { heads: 6, dim: 8, queries, keys: queries };
        let [q, ..] = inputs(shape);
        let [_, k, v] = inputs(Shape { heads: 2, ..shape });
        let each = |x: &[f32]| -> Vec<f32> {
            x.chunks(queries * shape.dim).flat_map(|head| [head, head, head].concat()).collect()
        };
        let pieces = [Piece { k: &k, v: &v }];
        let bias = |_, query, key| if key <= query && key < seen { 0.0 } else { f64::NEG_INFINITY };
        let expected = plain(&q, &each(&k), &each(&v), shape, bias);
        assert_near(&found(&q, &pieces, shape, Bias::Causal(seen)), &expected);
    }
}

/// What an attention gives by each of several kinds of products: keys in pieces and queries that are no whole tiles, grouped heads,
/// every kind of bias.
fn assert_alike(by: [(By, bool); 2], tolerance: f32) {
    for (dim, queries, pieces) in [(32, 70, vec![600]), (128, 64, vec![64, 37, 530]), (200, 150, vec![700, 33])] {
        let keys: usize = pieces.iter().sum();
        let shape = Shape { heads: 2, dim, queries, keys };
        let quiet = |x: Vec<f32>| -> Vec<f32> { x.iter().map(|value| 0.25 * value).collect() };
        let [q, ..] = inputs(shape).map(quiet);
        let [_, k, v] = inputs(Shape { heads: 1, ..shape }).map(quiet);
        let mut rest = (&k[..], &v[..]);
        let mut piece = |count: &usize| {
            let ((k, k_rest), (v, v_rest)) = (rest.0.split_at(count * dim), rest.1.split_at(count * dim));
            rest = (k_rest, v_rest);
            Piece { k, v }
        };
        let pieces: Vec<Piece<'_>> = pieces.iter().map(&mut piece).collect();
        let scores = wave(queries * keys, 0.7, 3.0);
        let runs = [(40, 1.5), (7, f32::NEG_INFINITY)];
        let seen = keys.min(queries) - 5;
        for bias in [Bias::None, Bias::Scores(&scores), Bias::Runs(&runs), Bias::Causal(seen)] {
            let scale = std::f32::consts::LOG2_E / (dim as f32).sqrt();
            let [first, second] = by.map(|(by, rounds)| {
                let mut out = vec![f32::NAN; q.len()];
                attention_by(by, &q, &pieces, &Attention { shape, scale, bias, query_rows: 128, rounds }, &mut out);
                out
            });
            let worst = first.iter().zip(&second).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < tolerance, "{shape:?}: {worst:e}");
        }
    }
}

#[test]
fn a_matrix_unit_gives_the_same_in_halves() {
    assert_alike([(By::Vectors, false), (By::Unit(Unit::Model), false)], 2e-5);
}

/// Scores of up to 8 by inputs of 8 bits of mantissa, of values up to a quarter.
#[test]
fn pairs_give_what_tiles_give_in_one_product() {
    if pairs::available() {
        assert_alike([(By::Pairs, true), (By::Unit(Unit::Model), true)], 2e-3);
        assert_alike([(By::Pairs, true), (By::Vectors, true)], 1e-2);
    }
}

/// With `rounds` a unit, and pairs, take the nearest bf16 of everything, and of the softmax's weights.
#[test]
fn one_product_where_rounding_will_do() {
    let shape = Shape { heads: 2, dim: 128, queries: 70, keys: 600 };
    let inputs = inputs(shape).map(|x| x.iter().map(|value| 0.25 * value).collect::<Vec<_>>());
    let nearest = inputs.clone().map(|x| x.iter().map(|value| bf16::from_f32(*value).to_f32()).collect::<Vec<_>>());
    let given = |by, [q, k, v]: &[Vec<f32>; 3], rounds| {
        // A power of two: q times it is rounded as q is.
        let how = Attention { shape, scale: 0.125, bias: Bias::None, query_rows: 128, rounds };
        let mut out = vec![f32::NAN; q.len()];
        attention_by(by, q, &[Piece { k, v }], &how, &mut out);
        out
    };
    assert_eq!(given(By::Vectors, &inputs, true), given(By::Vectors, &inputs, false), "vectors round nothing");
    let expected = given(By::Vectors, &nearest, false);
    let pairs = pairs::available().then_some(By::Pairs);
    for by in [By::Unit(Unit::Model)].into_iter().chain(pairs) {
        let found = given(by, &inputs, true);
        assert_eq!(found, given(by, &nearest, true), "inputs are rounded once");
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // A weight is off by 2^-9 of itself at most, and all of them are 1 together.
        let largest = nearest[2].iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert!(worst > 1e-6 && worst < largest / 512.0, "{by:?}: {worst:e} of {largest}");
    }
}

#[test]
fn a_bias_of_nothing_changes_no_bit() {
    let shape = Shape { heads: 2, dim: 32, queries: 70, keys: 600 };
    let [q, k, v] = inputs(shape);
    let pieces = [Piece { k: &k, v: &v }];
    let without = found(&q, &pieces, shape, Bias::None);
    assert_eq!(found(&q, &pieces, shape, Bias::Runs(&[(600, 0.0)])), without);
}
