"""A network inside jitted code: a Monte-Carlo simulation of pendulums that it holds upright.

A network learns the torque of a control law, saturation included. Then it balances ten thousand
pendulums, each of another length and pushed at random, at 100 predictions a second of their time.
`fastmlp.kernels.predict` is called in the innermost loop: no Python, no allocation.

    python examples/pendulum.py

prints how many stayed upright, and what a prediction costs here and from Python.
"""

import time

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from fastmlp import MLP, Adam, fit, kernels

GRAVITY, STEP, STEPS = 9.81, 0.01, 1000
PENDULUMS = 10_000


@njit
def control_law(angle, velocity):
    """The torque, at most 8, that holds a pendulum of unit mass and length upright."""
    return min(max(-20.0 * angle - 6.0 * velocity, -8.0), 8.0)


@njit(parallel=True)
def simulate(network, works, lengths, pushes):
    """Return for how many steps the network held each pendulum within a right angle."""
    steps = np.zeros(len(lengths), np.int64)
    for i in prange(len(lengths)):
        work = works[get_thread_id()]
        state, torque = np.zeros((1, 2), np.float32), np.empty((1, 1), np.float32)
        angle, velocity = 0.2, 0.0
        for step in range(STEPS):
            state[0, 0], state[0, 1] = angle, velocity
            kernels.predict(torque, state, network, work)
            forces = GRAVITY / lengths[i] * np.sin(angle) + torque[0, 0] / lengths[i] ** 2
            velocity += STEP * forces + pushes[i, step]
            angle += STEP * velocity
            if abs(angle) > np.pi / 2:
                break
            steps[i] += 1
    return steps


def trained_controller(rng):
    """Return a network that has learnt `control_law`."""
    states = rng.uniform([-1, -4], [1, 4], (20_000, 2))
    torques = np.array([control_law(*state) for state in states])
    net = MLP([2, 32, 32, 1], activation="tanh", loss="half_squared_error", seed=0)
    history = fit(net, states, torques, optimizer=Adam(0.005), epochs=20, batch_size=64)
    print(f"controller: root mean square error {np.sqrt(2 * history.loss[-1]):.3f} of 8")
    return net


def main():
    """Train, simulate, and compare the cost of a prediction."""
    rng = np.random.default_rng(0)
    net = trained_controller(rng)
    network = net.jitted()
    works = np.empty((get_num_threads(), kernels.workspace_length(network)), net.dtype)
    lengths = rng.uniform(0.5, 1.5, PENDULUMS)
    pushes = rng.normal(0.0, 0.1, (PENDULUMS, STEPS))
    simulate(network, works, lengths[:1], pushes[:1])  # compiles

    begin = time.perf_counter()
    steps = simulate(network, works, lengths, pushes)
    seconds = time.perf_counter() - begin
    print(f"{np.mean(steps == STEPS):.1%} of {PENDULUMS} pendulums stayed upright")
    print(f"jitted:      {seconds / steps.sum() * 1e6:5.2f} us a step, on {len(works)} threads")

    state = np.zeros((1, 2), net.dtype)
    begin = time.perf_counter()
    for _ in range(10_000):
        net.predict(state)
    print(f"from Python: {(time.perf_counter() - begin) / 10_000 * 1e6:5.2f} us a prediction")


if __name__ == "__main__":
    main()
