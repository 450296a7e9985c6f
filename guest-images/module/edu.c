// SPDX-License-Identifier: GPL-2.0
/* QEMU's edu device: a real DMA engine with 4 KiB of memory of its own. */
#include <linux/dma-mapping.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "tdharness.h"

#define EDU_SOURCE 0x80
#define EDU_TARGET 0x88
#define EDU_COUNT 0x90
#define EDU_COMMAND 0x98
#define EDU_START BIT(0)
#define EDU_FROM_DEVICE BIT(1)
#define EDU_MEMORY 0x40000
#define EDU_BYTES 4096

/* The device answers after 100 ms of its clock; a slow host may need much more. */
#define EDU_TIMEOUT_US (10 * USEC_PER_SEC)

static DEFINE_MUTEX(edu_lock);
static struct pci_dev *edu_device;
static void __iomem *edu_registers;

/* One buffer, reached by the device through a coherent or a streaming mapping. */
struct edu_buffer {
	bool stream;
	enum dma_data_direction direction;
	u8 *data;
	dma_addr_t address;
	size_t bytes;
};

static int buffer_create(struct edu_buffer *buffer)
{
	struct device *device = &edu_device->dev;

	if (!buffer->stream)
		buffer->data =
			dma_alloc_coherent(device, buffer->bytes, &buffer->address, GFP_KERNEL);
	else
		buffer->data = kmalloc(buffer->bytes, GFP_KERNEL);
	return buffer->data ? 0 : -ENOMEM;
}

static void buffer_destroy(struct edu_buffer *buffer)
{
	if (!buffer->stream && buffer->data)
		dma_free_coherent(&edu_device->dev, buffer->bytes, buffer->data, buffer->address);
	else if (buffer->stream)
		kfree(buffer->data);
}

static int transfer(struct tdh_request *req, struct edu_buffer *buffer)
{
	bool from = buffer->direction == DMA_FROM_DEVICE;
	u32 command;
	int error;

	if (buffer->stream) {
		buffer->address = dma_map_single(&edu_device->dev, buffer->data, buffer->bytes,
						 buffer->direction);
		if (dma_mapping_error(&edu_device->dev, buffer->address))
			return tdh_fail(req, -ENOMEM, "dma_map_single of %zu bytes", buffer->bytes);
	}
	writeq(from ? EDU_MEMORY : buffer->address, edu_registers + EDU_SOURCE);
	writeq(from ? buffer->address : EDU_MEMORY, edu_registers + EDU_TARGET);
	writeq(buffer->bytes, edu_registers + EDU_COUNT);
	writeq(EDU_START | (from ? EDU_FROM_DEVICE : 0), edu_registers + EDU_COMMAND);
	error = readl_poll_timeout(edu_registers + EDU_COMMAND, command, !(command & EDU_START),
				   1000, EDU_TIMEOUT_US);
	if (buffer->stream)
		dma_unmap_single(&edu_device->dev, buffer->address, buffer->bytes,
				 buffer->direction);
	return error ? tdh_fail(req, error, "edu did not finish its DMA") : 0;
}

/*
 * To the device and back.  The way that is looked at is through a mapping of the wanted kind, the
 * other one through a coherent one.  With "spoil" one byte is changed after it came back.
 */
static int round_trip(struct tdh_request *req, const char *method, bool from, size_t size,
		      bool spoil)
{
	bool stream = !strcmp(method, "stream");
	struct edu_buffer out = {
		.stream = stream && !from,
		.direction = DMA_TO_DEVICE,
		.bytes = size,
	};
	struct edu_buffer back = {
		.stream = stream && from,
		.direction = DMA_FROM_DEVICE,
		.bytes = size,
	};
	u8 seed = 16 + 2 * stream + from;
	size_t first = 0, mismatches;
	int error = buffer_create(&out) ?: buffer_create(&back);

	if (!error) {
		tdh_fill(out.data, size, seed);
		memset(back.data, 0, size);
		error = transfer(req, &out) ?: transfer(req, &back);
	}
	if (!error) {
		if (spoil)
			back.data[size / 2] ^= 0xff;
		mismatches = tdh_compare(back.data, size, seed, &first);
		error = tdh_report_dma(req, "edu", from ? "from-device" : "to-device", method, size,
				       mismatches, first);
	}
	buffer_destroy(&out);
	buffer_destroy(&back);
	return error;
}

static int edu_run(struct tdh_request *req, const char *method, bool to, bool from, size_t size,
		   bool spoil)
{
	int error = 0;

	mutex_lock(&edu_lock);
	if (!edu_device)
		error = tdh_fail(req, -ENODEV, "there is no edu device");
	if (to && !error)
		error = round_trip(req, method, false, size, spoil);
	if (from && !error)
		error = round_trip(req, method, true, size, spoil);
	mutex_unlock(&edu_lock);
	return error;
}

int tdh_edu(struct tdh_request *req)
{
	const char *dir = tdh_word(req, "dir", "both");
	const char *method = tdh_word(req, "method", "coherent");
	bool to = strcmp(dir, "from-device"), from = strcmp(dir, "to-device");
	u64 size;
	int error = tdh_number(req, "size", EDU_BYTES, EDU_BYTES, &size);

	if (error)
		return error;
	if (!size || (to && from && strcmp(dir, "both")))
		return tdh_fail(req, -EINVAL, "dir must be both, to-device or from-device");
	if (strcmp(method, "coherent") && strcmp(method, "stream"))
		return tdh_fail(req, -EINVAL, "method must be coherent or stream");
	return edu_run(req, method, to, from, size, false);
}

/* The compare must fail: proof that it can. */
int tdh_edu_mismatch(struct tdh_request *req)
{
	return edu_run(req, "coherent", false, true, EDU_BYTES, true);
}

static int edu_probe(struct pci_dev *device, const struct pci_device_id *id)
{
	int error = pcim_enable_device(device);

	if (error)
		return error;
	error = dma_set_mask_and_coherent(&device->dev, DMA_BIT_MASK(32));
	if (error)
		return error;
	mutex_lock(&edu_lock);
	if (edu_device) {
		error = -EBUSY;
	} else {
		edu_registers = pcim_iomap(device, 0, 0);
		error = edu_registers ? 0 : -ENOMEM;
	}
	if (!error) {
		pci_set_master(device);
		edu_device = device;
	}
	mutex_unlock(&edu_lock);
	return error;
}

static void edu_remove(struct pci_dev *device)
{
	mutex_lock(&edu_lock);
	edu_device = NULL;
	mutex_unlock(&edu_lock);
	pci_clear_master(device);
}

static const struct pci_device_id edu_ids[] = { { PCI_DEVICE(0x1234, 0x11e8) }, {} };

static struct pci_driver edu_driver = {
	.name = "tdharness-edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};

int tdh_edu_init(void)
{
	return pci_register_driver(&edu_driver);
}

void tdh_edu_exit(void)
{
	pci_unregister_driver(&edu_driver);
}
