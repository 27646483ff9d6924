//! The programs of `examples/` that check themselves: each ends by itself, and in order only
//! if everything went as it says. Others are run by the tests of what they show.

use std::{process::Stdio, time::Duration};

use heartbeat_tests::{example, secs};
use tokio::{process::Command, time::timeout};

/// Each takes less than 10 s where there is a processor for it.
const PATIENCE: Duration = secs(60);

#[tokio::test]
async fn the_programs_to_copy_from_do_what_they_say() {
    for name in ["config", "login", "many", "subscriber", "tls", "udp"] {
        let mut program = Command::new(example(name));
        program.kill_on_drop(true).stdin(Stdio::null());
        let ended = timeout(PATIENCE, program.output()).await;
        let output = ended.expect(name).expect(name);
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}\n{complained}");
    }
}
