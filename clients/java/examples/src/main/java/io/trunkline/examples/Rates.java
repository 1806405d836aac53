package io.trunkline.examples;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;

/** Messages per second, measured several times. */
final class Rates {
    private final List<Double> rates = new ArrayList<>();

    /** Runs something that returns how many messages it handled. */
    void measure(boolean isWarmUp, Callable<Long> run) throws Exception {
        var began = System.nanoTime();
        var count = run.call();
        var rate = count / ((System.nanoTime() - began) / 1e9);
        if (!isWarmUp) rates.add(rate);
    }

    double median() {
        return rates.stream().sorted().skip(rates.size() / 2).findFirst().orElseThrow();
    }
}
