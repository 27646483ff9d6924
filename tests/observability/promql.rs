//! What a PromQL expression asks for: as much of the language as a dashboard
//! and alerts use.

use std::collections::BTreeMap;

/// One expression's names.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    pub series: Vec<Series>,
    /// The labels that it groups by.
    pub by: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// Labels, and the values that they are compared with.
    pub labels: BTreeMap<String, Vec<String>>,
}

const GROUPING: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

pub fn asked(expression: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        if first.is_alphabetic() || first == '_' {
            let (word, behind) = word(rest);
            let behind = behind.trim_start();
            if GROUPING.contains(&word) {
                let (list, behind) = enclosed(behind, '(', ')');
                asked
                    .by
                    .extend(list.split(',').map(|label| label.trim().into()));
                rest = behind;
                continue;
            }
            let is_series = !behind.starts_with('(') && !OPERATORS.contains(&word);
            // `sum by (label) (...)`
            let aggregates = GROUPING.contains(&self::word(behind).0);
            rest = behind;
            if is_series && !aggregates {
                let mut labels = BTreeMap::new();
                if behind.starts_with('{') {
                    let (matchers, behind) = enclosed(behind, '{', '}');
                    labels = compared(matchers);
                    rest = behind;
                }
                let name = word.into();
                asked.series.push(Series { name, labels });
            }
        } else if first == '[' {
            rest = enclosed(rest, '[', ']').1;
        } else if first.is_numeric() {
            rest =
                rest.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '.');
        } else {
            assert!(
                "()<>=!+-*/%^, \n".contains(first),
                "{first} in {expression}"
            );
            rest = &rest[1..];
        }
    }
    asked
}

fn word(text: &str) -> (&str, &str) {
    let ends = |letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':';
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn enclosed(text: &str, open: char, close: char) -> (&str, &str) {
    let inside = text.strip_prefix(open).expect(text);
    inside.split_once(close).expect("it is closed")
}

/// `label=~"one|other", another="third"`
fn compared(matchers: &str) -> BTreeMap<String, Vec<String>> {
    let mut compared = BTreeMap::new();
    for matcher in matchers.split(',') {
        let (label, behind) = word(matcher.trim());
        let value = behind.trim_start_matches(['=', '!', '~']);
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let values = value.expect(matchers).split('|').map(Into::into);
        compared.insert(label.into(), values.collect());
    }
    compared
}

#[test]
fn what_is_asked_for_is_found() {
    let expression = r#"histogram_quantile(0.99, sum by (le, job) (rate(a_bucket{x=~"1|2", y="$y"}[5m]))) > 0.8 * b"#;
    let labels = [("x", vec!["1", "2"]), ("y", vec!["$y"])];
    let owned = |(label, values): (&str, Vec<&str>)| {
        (
            label.to_owned(),
            values.into_iter().map(Into::into).collect(),
        )
    };
    let series = |name: &str, labels| Series {
        name: name.into(),
        labels,
    };
    assert_eq!(
        asked(expression),
        Asked {
            series: vec![
                series("a_bucket", labels.map(owned).into()),
                series("b", BTreeMap::new()),
            ],
            by: vec!["le".into(), "job".into()],
        }
    );
}
