// SPDX-License-Identifier: GPL-2.0
/* The DMA interface on a device that is none: coherent, streaming and atomic allocations. */
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "tdharness.h"

#define ATOMIC_MAX 64

static struct platform_device *tdh_platform;

int tdh_dma_init(void)
{
	int error;

	tdh_platform =
		platform_device_register_simple(KBUILD_MODNAME, PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(tdh_platform))
		return PTR_ERR(tdh_platform);
	error = dma_coerce_mask_and_coherent(&tdh_platform->dev, DMA_BIT_MASK(64));
	if (error)
		platform_device_unregister(tdh_platform);
	return error;
}

void tdh_dma_exit(void)
{
	platform_device_unregister(tdh_platform);
}

static struct tdh_touch *touch_create(struct tdh_request *req)
{
	struct tdh_touch *touch = kzalloc(sizeof(*touch), GFP_KERNEL);

	if (touch && tdh_touch_cpus(req, &touch->cpus)) {
		kfree(touch);
		touch = NULL;
	}
	return touch;
}

/* Every CPU stores and checks: DMA memory is memory, whichever CPU looks at it. */
static void touch_all(struct tdh_touch *touch, void *buffer, size_t bytes)
{
	touch->buffer = buffer;
	touch->bytes = bytes;
	tdh_write(touch);
	tdh_check(touch);
}

static int touch_report(struct tdh_request *req, struct tdh_touch *touch, size_t bytes)
{
	size_t mismatches = atomic64_read(&touch->mismatches);

	tdh_report(req, "bytes=%zu\nmismatches=%zu\n", bytes, mismatches);
	if (mismatches)
		return tdh_fail(req, -EIO, "%zu words differ, first at offset %lld", mismatches,
				atomic64_read(&touch->first));
	return 0;
}

int tdh_coherent(struct tdh_request *req)
{
	struct device *device = &tdh_platform->dev;
	struct tdh_touch *touch;
	u64 size, cycles;
	int error = tdh_number(req, "size", PAGE_SIZE, SZ_4M, &size) ?:
			    tdh_number(req, "cycles", 1, 1000, &cycles);

	if (error)
		return error;
	if (!size || !PAGE_ALIGNED(size))
		return tdh_fail(req, -EINVAL, "size must be whole pages");
	touch = touch_create(req);
	if (!touch)
		return -ENOMEM;
	for (u64 cycle = 0; cycle < cycles; cycle++) {
		dma_addr_t address;
		void *buffer = dma_alloc_coherent(device, size, &address, GFP_KERNEL);

		if (!buffer) {
			error = tdh_fail(req, -ENOMEM, "dma_alloc_coherent of %llu bytes", size);
			break;
		}
		touch_all(touch, buffer, size);
		dma_free_coherent(device, size, buffer, address);
	}
	error = error ?: touch_report(req, touch, size);
	kfree(touch);
	return error;
}

/*
 * Plays the device: the bytes at the bus address.  Without an IOMMU, as in a TD, the bus address is
 * the physical one, of the bounce buffer where there is one.
 */
static void *device_side(struct device *device, dma_addr_t address)
{
	return phys_to_virt(address);
}

static int stream_to_device(struct tdh_request *req, struct device *device, u8 *buffer, size_t size)
{
	dma_addr_t address;
	size_t first = 0, mismatches;

	tdh_fill(buffer, size, 1);
	address = dma_map_single(device, buffer, size, DMA_TO_DEVICE);
	if (dma_mapping_error(device, address))
		return tdh_fail(req, -ENOMEM, "dma_map_single of %zu bytes to the device", size);
	tdh_report(req, "bounced=%d\n", device_side(device, address) != buffer);
	mismatches = tdh_compare(device_side(device, address), size, 1, &first);
	/* What the CPU writes next must arrive by a sync, not before. */
	dma_sync_single_for_cpu(device, address, size, DMA_TO_DEVICE);
	tdh_fill(buffer, size, 2);
	dma_sync_single_for_device(device, address, size, DMA_TO_DEVICE);
	mismatches += tdh_compare(device_side(device, address), size, 2, &first);
	dma_unmap_single(device, address, size, DMA_TO_DEVICE);
	return tdh_report_dma(req, "none", "to-device", "stream", size, mismatches, first);
}

static int stream_from_device(struct tdh_request *req, struct device *device, u8 *buffer,
			      size_t size)
{
	dma_addr_t address;
	size_t first = 0, mismatches;

	tdh_fill(buffer, size, 3);
	address = dma_map_single(device, buffer, size, DMA_FROM_DEVICE);
	if (dma_mapping_error(device, address))
		return tdh_fail(req, -ENOMEM, "dma_map_single of %zu bytes from the device", size);
	tdh_fill(device_side(device, address), size, 4);
	dma_sync_single_for_cpu(device, address, size, DMA_FROM_DEVICE);
	mismatches = tdh_compare(buffer, size, 4, &first);
	dma_sync_single_for_device(device, address, size, DMA_FROM_DEVICE);
	tdh_fill(device_side(device, address), size, 5);
	dma_unmap_single(device, address, size, DMA_FROM_DEVICE);
	mismatches += tdh_compare(buffer, size, 5, &first);
	return tdh_report_dma(req, "none", "from-device", "stream", size, mismatches, first);
}

int tdh_stream(struct tdh_request *req)
{
	struct device *device = &tdh_platform->dev;
	const char *dir = tdh_word(req, "dir", "both");
	bool to = strcmp(dir, "from-device"), from = strcmp(dir, "to-device");
	u64 size;
	u8 *buffer;
	int error = tdh_number(req, "size", PAGE_SIZE, SZ_256K, &size);

	if (error)
		return error;
	if (!size || (to && from && strcmp(dir, "both")))
		return tdh_fail(req, -EINVAL, "dir must be both, to-device or from-device");
	buffer = kmalloc(size, GFP_KERNEL);
	if (!buffer)
		return -ENOMEM;
	if (to)
		error = stream_to_device(req, device, buffer, size);
	if (from && !error)
		error = stream_from_device(req, device, buffer, size);
	kfree(buffer);
	return error;
}

/* Allocations where sleeping, and so converting, is not possible: the atomic pool serves them. */
int tdh_atomic(struct tdh_request *req)
{
	struct device *device = &tdh_platform->dev;
	struct {
		void *buffer;
		dma_addr_t address;
	} block[ATOMIC_MAX];
	DEFINE_SPINLOCK(lock);
	struct tdh_touch *touch;
	unsigned long flags;
	u64 count, got = 0;
	int error = tdh_number(req, "count", 8, ATOMIC_MAX, &count);

	if (error)
		return error;
	touch = touch_create(req);
	if (!touch)
		return -ENOMEM;
	spin_lock_irqsave(&lock, flags);
	for (; got < count; got++) {
		block[got].buffer =
			dma_alloc_coherent(device, PAGE_SIZE, &block[got].address, GFP_ATOMIC);
		if (!block[got].buffer)
			break;
	}
	spin_unlock_irqrestore(&lock, flags);
	for (u64 i = 0; i < got; i++)
		touch_all(touch, block[i].buffer, PAGE_SIZE);
	for (u64 i = 0; i < got; i++)
		dma_free_coherent(device, PAGE_SIZE, block[i].buffer, block[i].address);
	tdh_report(req, "allocated=%llu\n", got);
	error = touch_report(req, touch, got * PAGE_SIZE);
	if (!error && got < count)
		error = tdh_fail(req, -ENOMEM, "%llu of %llu atomic allocations", got, count);
	kfree(touch);
	return error;
}
