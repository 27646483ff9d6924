//! Close frames (RFC 6455, section 5.5.1) as goodbyes, and goodbyes as close frames.
//!
//! This module maps their codes.

use heartbeat_core::GoodbyeCode;

use crate::{Detail, Frame};

const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const NO_STATUS: u16 = 1005;
const INVALID_PAYLOAD: u16 = 1007;
const TOO_BIG: u16 = 1009;
const MANDATORY_EXTENSION: u16 = 1010;
const SERVICE_RESTART: u16 = 1012;

/// Added to a goodbye's code, for the range that is free for applications.
const OURS: u16 = 4000;

/// A close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: Detail,
}

impl Close {
    /// A close frame without a code.
    pub(super) fn empty() -> Self {
        Self {
            code: NO_STATUS,
            reason: Detail::default(),
        }
    }

    pub(super) fn of_goodbye(code: GoodbyeCode, reason: Detail) -> Self {
        let code = match code {
            GoodbyeCode::LEAVING => NORMAL,
            GoodbyeCode(code) => OURS + u16::from(code),
        };
        Self { code, reason }
    }

    pub(super) fn into_goodbye<M>(self) -> Frame<M> {
        let code = self.goodbye_code();
        let is_ours = Self::of_goodbye(code, Detail::default()).code == self.code;
        let detail = match self.code {
            _ if is_ours => self.reason,
            GOING_AWAY | NO_STATUS | SERVICE_RESTART => self.reason,
            close => Detail::from(format!("{close} {}", self.reason).trim_end()),
        };
        Frame::Goodbye { code, detail }
    }

    fn goodbye_code(&self) -> GoodbyeCode {
        match self.code {
            SERVICE_RESTART => GoodbyeCode::RESTARTING,
            PROTOCOL_ERROR | UNSUPPORTED_DATA | INVALID_PAYLOAD | TOO_BIG | MANDATORY_EXTENSION => {
                GoodbyeCode::PROTOCOL
            }
            code => {
                let ours = code.checked_sub(OURS).and_then(|code| code.try_into().ok());
                // An answer to a goodbye is none itself.
                let ours = ours
                    .map(GoodbyeCode)
                    .filter(|&code| code != GoodbyeCode::RECEIVED);
                ours.unwrap_or(GoodbyeCode::LEAVING)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goodbye(code: u16, reason: &str) -> (u8, String) {
        let reason = Detail::from(reason);
        match (Close { code, reason }).into_goodbye::<()>() {
            Frame::Goodbye { code, detail } => (code.0, detail.as_str().into()),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn every_code_with_which_a_side_leaves_comes_back_as_it_was() {
        for code in (0..=u8::MAX).filter(|&code| code != 8) {
            let close = Close::of_goodbye(GoodbyeCode(code), Detail::from("why"));
            let expected = if code == 0 {
                1000
            } else {
                4000 + u16::from(code)
            };
            assert_eq!(close.code, expected);
            assert_eq!(goodbye(close.code, "why"), (code, "why".into()));
        }
    }

    #[test]
    fn a_close_code_of_the_standards_is_told_apart() {
        assert_eq!(goodbye(1000, "enough"), (0, "enough".into()));
        assert_eq!(goodbye(1001, ""), (0, String::new()));
        assert_eq!(goodbye(1005, ""), (0, String::new()));
        assert_eq!(goodbye(1012, "back at noon"), (1, "back at noon".into()));
        for code in [1002, 1003, 1007, 1009, 1010] {
            assert_eq!(goodbye(code, "bad"), (4, format!("{code} bad")));
        }
        assert_eq!(goodbye(1011, ""), (0, "1011".into()));
        assert_eq!(goodbye(3000, "x"), (0, "3000 x".into()));
        // An answer to a goodbye, and what no goodbye's code is.
        assert_eq!(goodbye(4000, "x"), (0, "4000 x".into()));
        assert_eq!(goodbye(4008, "x"), (0, "4008 x".into()));
        assert_eq!(goodbye(4403, "x"), (0, "4403 x".into()));
    }
}
