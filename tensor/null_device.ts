/**
 * A stand-in for a GPU device that does nothing, so that work can be counted without a GPU.
 *
 * @module
 */

/** A device that does nothing. Its buffers have a size, but no content; mapped ranges are all 0. */
export function nullDevice(limits: Partial<GPUSupportedLimits>): GPUDevice {
  const nothing = () => {};
  const labelled = ({ label = "" }: GPUObjectDescriptorBase = {}) => ({ label });
  const pass = {
    setPipeline: nothing,
    setBindGroup: nothing,
    dispatchWorkgroups: nothing,
    end: nothing,
  };
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    finish: () => ({}),
  };
  const device = {
    limits,
    features: new Set(),
    queue: { submit: nothing, writeBuffer: nothing, onSubmittedWorkDone: nothing },
    lost: new Promise(nothing),
    addEventListener: nothing,
    destroy: nothing,
    pushErrorScope: nothing,
    popErrorScope: () => Promise.resolve(null),
    createBuffer: ({ size }: GPUBufferDescriptor) => ({
      size,
      destroy: nothing,
      unmap: nothing,
      mapAsync: () => Promise.resolve(),
      getMappedRange: () => new ArrayBuffer(size),
    }),
    createBindGroupLayout: labelled,
    createBindGroup: labelled,
    createPipelineLayout: labelled,
    createShaderModule: labelled,
    createComputePipeline: labelled,
    createComputePipelineAsync: (descriptor: GPUObjectDescriptorBase) =>
      Promise.resolve(labelled(descriptor)),
    createCommandEncoder: () => encoder,
  };
  // It has only the members that an engine and its kernels use.
  return device as unknown as GPUDevice;
}
