"""The parity verdict: does a run follow its reference, metric by metric, and if not, since which step and why.

**The question.** Reference runs are seeds of one healthy configuration. A run is at parity with them when it could be
one more seed. This does not mean that two runs are equal; the width of the band is the distance between seeds.

**The model.** In the scale of a metric (linear, or logarithmic where noise is a share of the value: clip rate, KL,
entropy) the value of run i at step t is f(t) + g_i(t) + e_i(t): a trend that all seeds share, whatever its shape; a
slow deviation of the seed, with one spread over the run; noise of the step, which may be correlated over less than a
window. Runs are compared at the same steps, so the trend drops out.

**The statistic.** D(t) is the mean of the run over the last `window` common steps, less the mean over the references of
the same. The means are trimmed, without the highest and the lowest fifth of a window, so that one wild step does not
carry every window that it is in. With k references Var D = s^2 (1 + 1/k), where s is the spread over seeds of such a
mean, noise included. The band is +-q s sqrt(1 + 1/k).

**The spread.** From several references: their sample variance, pooled over the windows, with as many degrees of freedom
as the windows are worth given their correlation, and moderated by the rule's usual `spread` s0, a belief worth
`weight` degrees of freedom: s^2 = (weight s0^2 + v S^2) / (weight + v) (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3).
From *one* reference the spread over seeds cannot be known: s^2 = s0^2 + the variance of a window's mean under a
moving-block bootstrap of the reference's residuals (Kuensch 1989, Ann. Stat. 17:1217; block = window, one block a
window, so the ideal bootstrap variance is that of all its moving windows and needs no drawing). The verdict then rests
on s0 being true of the runs at hand, and the report says so.

**The rule.** A run is out of the band for good from a step on when D stays outside on one side for `window` steps in a
row. One excursion of noise does not do that. Any `window` steps in a row hold the end of one window of a fixed grid,
so P(any metric of a healthy run fails) is at most the sum over metrics and grid windows of P(D outside there). q is the
quantile of Student's t at alpha / (metrics x grid windows), halved where both sides count: the rate of false alarms of
a *whole verdict* is at most alpha (Bonferroni), whatever the correlation between windows and between metrics, as far as
the model holds. Simulated: tests/unit/test_parity_rates.py.

**After a switch.** A repaired run starts from weights that went wrong and needs time to return to the band, so from the
step of the switch on being outside is not a failure by itself. It passes if it came back and then stayed inside for
`hold` steps up to the end, at the same steps as the reference: no shift in time is granted. The step of its return is
reported.
"""
