//! What is said where there are fewer pages than all queues want.

use super::config::OTHER_VIF_PAGES;

/// What there is where pages are not enough. Said once a start, whatever number of grants were refused.
pub(super) struct Found {
    /// Queues, and those that were wanted.
    pub queues: [usize; 2],
    /// Pages of the first queue's pools, and those that were wanted.
    pub pages: [usize; 2],
    /// Pages that all queues were to start with.
    pub all: usize,
    /// The limit of shared pages, if it can be read.
    pub limit: Option<usize>,
    /// The simulated Xen has no parameter that could be set.
    pub simulated: bool,
}

impl Found {
    /// A limit that is enough, whoever else shares pages now: others have at most what the limit allows beyond ours.
    fn enough(&self, limit: usize) -> usize {
        let [queues, wanted] = self.queues;
        let [granted, pages] = self.pages;
        let ours = match granted < pages {
            true => self.all / wanted - (pages - granted),
            false => self.all / wanted * queues,
        };
        let room = if wanted > 1 { OTHER_VIF_PAGES } else { 0 };
        limit.saturating_sub(ours) + self.all + room
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const LIMIT: &str = "/sys/module/xen_gntalloc/parameters/limit";
        let [queues, wanted] = self.queues;
        let [granted, pages] = self.pages;
        if queues < wanted {
            write!(
                f,
                "{queues} of {wanted} queues: the limit of shared pages is not enough for more with {OTHER_VIF_PAGES} \
                 pages left for another vif; "
            )?;
        }
        if granted < pages {
            write!(
                f,
                "pools start smaller, with {granted} of {pages} pages, since no more can be shared; "
            )?;
        }
        match self.limit {
            Some(limit) if self.simulated => write!(
                f,
                "{limit} may be shared by each domain of the simulated Xen: ask for fewer queues or smaller pools"
            ),
            Some(limit) => write!(
                f,
                "{limit} may be shared by all processes together; as root: echo {} >{LIMIT}",
                self.enough(limit)
            ),
            None => write!(f, "raise {LIMIT} if it is that limit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_says_what_was_wanted_what_there_is_and_a_limit_that_is_enough() {
        let found = |queues, pages, limit| {
            Found {
                queues,
                pages,
                all: queues[1] * 770,
                limit,
                simulated: false,
            }
            .to_string()
        };
        let fewer = found([1, 4], [768, 768], Some(1024));
        assert!(fewer.starts_with("1 of 4 queues: the limit"), "{fewer}");
        let enough = 1024 - 770 + 4 * 770 + OTHER_VIF_PAGES;
        assert!(fewer.contains(&format!("echo {enough} >/sys")), "{fewer}");
        let smaller = found([1, 1], [384, 768], Some(400));
        assert!(
            smaller.starts_with("pools start smaller, with 384 of 768 pages"),
            "{smaller}"
        );
        assert!(smaller.contains("echo 784 >/sys"), "{smaller}");
        assert!(found([1, 1], [384, 768], None).contains("if it is that limit"));
    }

    #[test]
    fn on_the_simulated_xen_nobody_is_sent_to_a_file_that_changes_nothing_there() {
        let found = Found {
            queues: [1, 4],
            pages: [768, 768],
            all: 4 * 770,
            limit: Some(1024),
            simulated: true,
        };
        let text = found.to_string();
        assert!(
            text.contains("1024 may be shared") && !text.contains("/sys"),
            "{text}"
        );
    }
}
