use super::*;

const KEEP: Duration = Duration::from_mins(1);

const BEGAN_MS: u64 = 1_000_000;

fn at(seconds: u64) -> Moment {
    Moment {
        elapsed: Duration::from_secs(seconds),
        unix_ms: BEGAN_MS + seconds * 1000,
    }
}

/// Takes an answer; answers the percentage that is followed then, and whether there was news.
fn hear(agent: &mut Agent, seconds: u64, text: &str) -> (u32, bool) {
    let answer = Answer::parse(text).unwrap();
    let news = agent.take(at(seconds), Ok(&answer));
    (percent(agent), news.is_some())
}

fn percent(agent: &Agent) -> u32 {
    (agent.part().number() * 100.0).round() as u32
}

#[test]
fn it_has_its_whole_weight_until_it_says_something() {
    let mut agent = Agent::default();
    assert_eq!((percent(&agent), agent.wish()), (100, None));
    assert_eq!(agent.take(at(1), Err("refused".to_owned())), None);
    assert!(!agent.is_known(), "one question may be lost");
    assert_eq!(agent.take(at(3), Err("refused".to_owned())), None);
    assert!(agent.is_known());
    assert_eq!((percent(&agent), agent.failure()), (100, Some("refused")));
    assert_eq!(
        agent.pass(at(1000), KEEP),
        None,
        "there is no word to forget"
    );
}

#[test]
fn what_an_answer_leaves_out_stays_as_it_was() {
    let mut agent = Agent::default();
    assert_eq!(hear(&mut agent, 0, "50%"), (50, true));
    assert_eq!(hear(&mut agent, 20, "drain # update"), (0, true));
    let wish = agent.wish().unwrap();
    assert_eq!((wish.word(), wish.percent), ("drain", 50));
    assert_eq!(wish.to_string(), "no new flows ('drain'): update");
    assert_eq!(
        hear(&mut agent, 40, "up"),
        (0, false),
        "up does not end a drain"
    );
    assert_eq!(hear(&mut agent, 60, "ready"), (50, true));
    assert_eq!(agent.wish().unwrap().to_string(), "50 % of its weight");
    assert_eq!(hear(&mut agent, 80, "100%"), (100, true));
    assert_eq!(agent.wish().unwrap().to_string(), "its whole weight");
}

#[test]
fn who_says_that_it_is_down_gets_nothing_new_until_it_says_up() {
    let mut agent = Agent::default();
    for (n, word) in ["down", "fail", "stopped", "maint"].into_iter().enumerate() {
        let began = 100 * n as u64;
        assert_eq!(hear(&mut agent, began, word), (0, true));
        assert_eq!(agent.wish().unwrap().word(), word);
        assert_eq!(hear(&mut agent, began + 20, "75%"), (0, false), "{word}");
        assert_eq!(hear(&mut agent, began + 40, "up ready"), (75, true));
    }
}

#[test]
fn small_changes_are_not_followed_and_none_comes_soon_after_another() {
    let mut agent = Agent::default();
    assert_eq!(hear(&mut agent, 0, "60%"), (60, true));
    assert_eq!(hear(&mut agent, 2, "30%"), (60, false), "too soon");
    assert_eq!(hear(&mut agent, 9, "30%"), (60, false), "too soon");
    assert_eq!(hear(&mut agent, 10, "30%"), (30, true));
    assert_eq!(hear(&mut agent, 30, "34%"), (30, false), "too little");
    assert_eq!(hear(&mut agent, 32, "35%"), (35, true));
    assert_eq!(hear(&mut agent, 50, "96%"), (96, true));
    assert_eq!(hear(&mut agent, 70, "100%"), (100, true), "all is all");
    assert_eq!(hear(&mut agent, 90, "97%"), (100, false));
    assert_eq!(hear(&mut agent, 110, "2%"), (2, true));
    assert_eq!(
        hear(&mut agent, 111, "0%"),
        (0, true),
        "nothing is nothing, at once"
    );
    assert_eq!(
        hear(&mut agent, 113, "1%"),
        (0, false),
        "and back not so soon"
    );
    assert_eq!(hear(&mut agent, 121, "1%"), (1, true));
}

#[test]
fn another_word_for_the_same_is_told_and_moves_nothing() {
    let mut agent = Agent::default();
    hear(&mut agent, 0, "drain");
    assert_eq!(hear(&mut agent, 10, "maint"), (0, true));
    assert_eq!(agent.since_ms(), at(10).unix_ms);
    assert_eq!(hear(&mut agent, 20, "maint"), (0, false));
    assert_eq!(agent.since_ms(), at(10).unix_ms);
}

#[test]
fn the_last_word_of_a_silent_agent_counts_for_some_time() {
    let mut agent = Agent::default();
    hear(&mut agent, 10, "drain");
    agent.take(at(12), Err("refused".to_owned()));
    assert_eq!(agent.pass(at(69), KEEP), None);
    assert_eq!(percent(&agent), 0);
    let news = agent.pass(at(70), KEEP).unwrap();
    let News::Forgotten { word, silent, why } = news else {
        panic!("{news:?}");
    };
    assert_eq!(
        (word.word(), silent, why.as_str()),
        ("drain", KEEP, "refused")
    );
    assert_eq!((percent(&agent), agent.wish()), (100, None));
    assert_eq!(agent.pass(at(71), KEEP), None, "told once");
    assert_eq!(hear(&mut agent, 72, "up"), (100, false), "no drain is left");
}

#[test]
fn a_word_from_before_counts_until_another_one_comes() {
    let wish = Wish {
        admin: Admin::Drain,
        ..Wish::default()
    };
    let mut agent = Agent::remembered(wish, 7);
    assert_eq!(agent.since_ms(), 7);
    assert_eq!(percent(&agent), 0);
    assert!(agent.is_known());
    assert_eq!(hear(&mut agent, 1, "ready up 40%"), (40, true));
}
