//! How much of an order could trade at once, for those that want all of it or a minimum.

use crate::accounts::Accounts;
use crate::book::Book;
use crate::codes::SelfTrade;
use crate::levels::reach;
use crate::slab::{Node, Nodes};
use crate::taker::Taker;

/// What a taker would get within its limit. Quantity behind an order that ends its matching, or
/// takes from it without a trade, is not counted.
pub(crate) struct Reachable<'a> {
    pub(crate) book: &'a Book,
    pub(crate) nodes: &'a Nodes,
    pub(crate) accounts: &'a Accounts,
    pub(crate) taker: &'a Taker,
    pub(crate) enough: u128,
}

impl Reachable<'_> {
    /// Whether it is as much as is enough.
    pub(crate) fn is_enough(&self) -> bool {
        let side = self.taker.node.side;
        let reach = reach(side, self.taker.limit());
        let ladder = self.book.ladder(side.opposite());
        let within = ladder.best_first().take_while(|level| level.rank >= reach);
        let stp = self.taker.node.stp();
        if stp == SelfTrade::None as u8 {
            let mut reachable: u128 = ladder.hidden.range(reach..).map(|(_, &qty)| qty).sum();
            return reachable >= self.enough
                || within.into_iter().any(|level| {
                    reachable += level.shown();
                    reachable >= self.enough
                });
        }
        let skips_own = stp == SelfTrade::CancelMaker as u8;
        let mut reachable = 0;
        for level in within {
            let (mut shown, mut leaves) = (0, 0);
            for at in ladder.queue(self.nodes, level) {
                let maker = self.nodes.get(at);
                if self.is_own(maker) {
                    if skips_own {
                        continue;
                    }
                    // What icebergs ahead of the own order hide would come back behind it.
                    return reachable + shown >= self.enough;
                }
                shown += u128::from(self.nodes.displayed(at));
                leaves += u128::from(maker.leaves);
                if reachable + shown >= self.enough {
                    return true;
                }
            }
            reachable += leaves;
            if reachable >= self.enough {
                return true;
            }
        }
        false
    }

    fn is_own(&self, maker: &Node) -> bool {
        self.accounts
            .are_one(self.taker.node.account, maker.account)
    }
}
