//! Every state of a small world of money keeps the rules; and a host with a mistake breaks them.

#[cfg(test)]
mod explorer;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use crate::explorer::{Found, search};
    use crate::world::{Bug, Flow, Size, Step};

    /// Everything that can happen, to two payments.
    const TWO: Size = Size {
        payments: 2,
        horizon: 4,
        crashes: true,
        reorganisations: true,
        amounts: &[2, 3],
        befores: &[2, 3],
        partial: true,
        reviews: true,
        cancellations: true,
        disputes: true,
        refunds: 1,
        bug: None,
    };

    fn told(world: &Flow, found: &Found<Step>) {
        let (payments, Found { states, steps, depth, .. }) = (world.size.payments, found);
        println!("{payments} payments: {states} states, {steps} steps, at most {depth} from the first");
    }

    fn sound(size: Size) -> Flow {
        let world = Flow::new(size);
        let found = search(&world);
        told(&world, &found);
        assert!(found.broken.is_none(), "{:#?}", found.broken);
        assert!(world.settled_all(), "no state was found in which every payment settled");
        assert!(world.capacity_back(), "no state was found in which a proven expiry gave the whole budget back");
        world
    }

    #[test]
    fn one_payment_keeps_every_rule() {
        let world = sound(Size { payments: 1, horizon: 5, befores: &[2, 3, 4], refunds: 2, ..TWO });
        assert_eq!(world.unused_rules(), Vec::<String>::new(), "the model does not reach these rows of the table");
    }

    #[test]
    fn two_payments_keep_every_rule() {
        sound(TWO);
    }

    #[test]
    fn three_payments_keep_every_rule() {
        sound(Size {
            payments: 3,
            horizon: 4,
            crashes: true,
            reorganisations: true,
            partial: false,
            reviews: false,
            cancellations: false,
            disputes: false,
            ..TWO
        });
    }

    #[test]
    fn every_mistake_is_found() {
        for bug in Bug::ALL {
            let world = Flow::new(Size { bug: Some(bug), ..TWO });
            let found = search(&world);
            let (why, steps) =
                found.broken.unwrap_or_else(|| panic!("{bug:?} was not found in {} states", found.states));
            println!("{bug:?}: {why}");
            for (n, step) in (1..).zip(&steps) {
                println!("  {n}. {step:?}");
            }
        }
    }
}
