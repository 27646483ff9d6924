//! Makes a script that fails short, and shows it.

use crate::{
    judge::{Judge, Violation},
    ops::Script,
    tally::Tally,
};

/// Runs a script from its beginning.
pub(crate) fn run(script: &Script) -> Result<(), Violation> {
    let mut tally = Tally::default();
    let mut judge = Judge::new(script);
    for &call in &script.calls {
        judge.call(call, &mut tally)?;
    }
    Ok(())
}

/// Takes calls away for as long as the same rule is broken.
pub(crate) fn shrink(mut script: Script, violation: Violation) -> (Script, Violation) {
    let same = |script: &Script| match run(script) {
        Err(found) if found.rule == violation.rule => Some(found),
        _ => None,
    };
    let mut found = same(&script).unwrap_or_else(|| violation.clone());
    let mut size = script.calls.len() / 2;
    while size > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at + size <= script.calls.len() {
            let candidate = script.without(at, at + size);
            if let Some(again) = same(&candidate) {
                (script, found, shorter) = (candidate, again, true);
            } else {
                at += size;
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    (script, found)
}

/// A failure as a person needs it.
pub(crate) fn report(script: Script, violation: Violation) -> String {
    let (script, violation) = shrink(script, violation);
    format!(
        "{}\n{}\n\nThis reproduces it:\n\n{}",
        violation.rule,
        violation.detail,
        script.lines()
    )
}
