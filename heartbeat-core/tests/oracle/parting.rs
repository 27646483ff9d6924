//! What each side has said about its messages, as docs/state-machine.md has it
//! under "Leaving".

use heartbeat_core::{CloseReason, Control, GoodbyeCode, NoDetail};

use crate::span::LAST;

const RECEIVED: GoodbyeCode = GoodbyeCode(8);

/// How far a frame of ours has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Said {
    Due,
    InFlight,
    Left,
}

/// What we said with `close`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Goodbye {
    code: GoodbyeCode,
    until: u64,
    said: Said,
    /// The peer answered it with code 8.
    confirmed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Parting {
    fin: Option<Said>,
    goodbye: Option<Goodbye>,
    /// Whether the peer's Fin came, and the code with which it left.
    their_fin: bool,
    their_goodbye: Option<GoodbyeCode>,
    /// What its goodbye is owed.
    answer: Option<Said>,
    discarded: bool,
}

/// What becomes of the peer's goodbye.
pub(crate) enum Answered {
    /// We leave too.
    Later,
    /// It ends the connection.
    Now(Option<GoodbyeCode>),
}

impl Parting {
    // ---- what is called ------------------------------------------------

    pub(crate) fn finish(&mut self) {
        if self.goodbye.is_none() {
            self.fin = self.fin.or(Some(Said::Due));
        }
    }

    pub(crate) fn close(&mut self, code: GoodbyeCode, until: u64) {
        self.goodbye = self.goodbye.or(Some(Goodbye {
            code,
            until,
            said: Said::Due,
            confirmed: false,
        }));
    }

    /// A stall of ours is told: what was over ends now.
    pub(crate) fn slept(&mut self, now: u64) {
        if let Some(goodbye) = &mut self.goodbye {
            goodbye.until = goodbye.until.max(now.min(LAST));
        }
    }

    pub(crate) const fn discard(&mut self) {
        self.discarded = true;
    }

    /// True: it is news.
    pub(crate) fn hear_fin(&mut self) -> bool {
        let is_news = !self.their_fin && self.their_goodbye.is_none();
        self.their_fin = true;
        is_news
    }

    /// A goodbye that is no verdict.
    pub(crate) fn hear_goodbye(&mut self, code: GoodbyeCode, foreign: bool) -> Answered {
        let is_owed = code != RECEIVED && !foreign;
        let reply = self.reply();
        let Some(goodbye) = &mut self.goodbye else {
            return Answered::Now(is_owed.then_some(reply));
        };
        if code == RECEIVED && goodbye.said != Said::Due {
            goodbye.confirmed = true;
        } else if self.their_goodbye.is_none() {
            self.their_goodbye = Some(code);
            self.answer = is_owed.then_some(Said::Due);
        }
        Answered::Later
    }

    /// Everything that was handed out has left. True: our Fin with it.
    pub(crate) fn flushed(&mut self) -> bool {
        let fin = self.fin == Some(Said::InFlight);
        let goodbye = self.goodbye.as_mut().map(|goodbye| &mut goodbye.said);
        let all = [self.fin.as_mut(), goodbye, self.answer.as_mut()];
        for said in all.into_iter().flatten() {
            if *said == Said::InFlight {
                *said = Said::Left;
            }
        }
        fin
    }

    // ---- what is due ---------------------------------------------------

    const fn reply(&self) -> GoodbyeCode {
        if self.discarded {
            GoodbyeCode(0)
        } else {
            RECEIVED
        }
    }

    /// What is handed out behind everything else, from the first to the last.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Control> + use<> {
        let fin = self.fin.filter(|_| self.goodbye.is_none());
        let fin = (fin == Some(Said::Due)).then_some(Control::Fin);
        let goodbye = self.goodbye.filter(|goodbye| goodbye.said == Said::Due);
        let goodbye = goodbye.map(|goodbye| Control::Goodbye(goodbye.code));
        let answer = self.answer == Some(Said::Due);
        let answer = answer.then(|| Control::Goodbye(self.reply()));
        [fin, goodbye, answer].into_iter().flatten()
    }

    /// The first of them was handed out.
    pub(crate) fn transmitted(&mut self) {
        let due = |said: &Said| *said == Said::Due;
        match &mut self.goodbye {
            None => self.fin = self.fin.map(|_| Said::InFlight),
            Some(goodbye) if due(&goodbye.said) => goodbye.said = Said::InFlight,
            Some(_) => self.answer = Some(Said::InFlight),
        }
    }

    // ---- what has come of it -------------------------------------------

    pub(crate) const fn is_leaving(&self) -> bool {
        self.goodbye.is_some()
    }

    /// When linger is over.
    pub(crate) fn until(&self) -> Option<u64> {
        self.goodbye.map(|goodbye| goodbye.until)
    }

    /// How it ends, now that all is said; `None` as long as something is missing.
    pub(crate) fn is_over(&self, foreign: bool) -> Option<CloseReason> {
        let left = |said: Option<Said>| said == Some(Said::Left);
        let confirmed = self.goodbye.is_some_and(|goodbye| goodbye.confirmed);
        let answered = self.answer.is_none() || left(self.answer);
        let said = left(self.goodbye.map(|goodbye| goodbye.said));
        if confirmed && answered || foreign && said {
            Some(CloseReason::Local)
        } else if left(self.fin) && self.their_fin && self.their_goodbye.is_none() {
            Some(CloseReason::Finished)
        } else {
            None
        }
    }

    /// What any other end comes to, if not to a death.
    pub(crate) fn instead_of_death(&self) -> Option<CloseReason> {
        if self.goodbye.is_some_and(|goodbye| goodbye.confirmed) {
            return Some(CloseReason::Local);
        }
        let detail = NoDetail;
        let code = self.their_goodbye?;
        Some(CloseReason::Peer { code, detail })
    }
}
