"""Fit least squares on several workers: torchrun --nproc-per-node 2 notebooks/ddp.py"""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

BATCH = 48  # rows of one step, over all workers: divisible by 2, 3, 4, 6, and 8, as 480 is
generator = torch.Generator().manual_seed(0)
X = torch.randn(480, 5, generator=generator, dtype=torch.float64)
y = X.sum(1, keepdim=True) + torch.randn(480, 1, generator=generator, dtype=torch.float64)
data = TensorDataset(X, y)


def make_model():
    torch.manual_seed(0)
    return nn.Linear(5, 1, dtype=torch.float64)


def train(model, sampler, batch_size):
    """Train for five epochs and return all weights and the gradients of the last step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for epoch in range(5):
        sampler.set_epoch(epoch)  # a new order of the rows, the same for all workers
        for inputs, targets in DataLoader(data, batch_size, sampler=sampler):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
    return torch.cat([t.detach().flatten() for p in model.parameters() for t in (p, p.grad)])


distributed.init_process_group("gloo")
rank, world = distributed.get_rank(), distributed.get_world_size()
sampler = DistributedSampler(data, shuffle=True)
replica = train(DistributedDataParallel(make_model()), sampler, BATCH // world)
alone = train(make_model(), DistributedSampler(data, num_replicas=1, rank=0), BATCH)
first = replica.clone()
distributed.broadcast(first, src=0)
print(
    f"worker {rank} of {world}: differs from worker 0 by {(replica - first).abs().max():.0e},"
    f" from one process by {(replica - alone).abs().max():.0e}\n",
    end="",  # so that the lines of two workers do not mix
)
distributed.destroy_process_group()
