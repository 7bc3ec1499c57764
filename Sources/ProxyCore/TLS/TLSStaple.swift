/// An OCSP response that is sent along with the certificate it is about, so that clients need not ask (RFC 6066 §8).
///
/// Its signature is for clients to check; what is checked here is that it is a response, and about which certificates.

internal import COpenSSL
internal import Glibc

struct TLSStaple: Equatable, Sendable {
  let bytes: [UInt8]
  /// The numbers of the certificates it is about.
  let serials: [[UInt8]]
  /// Seconds since 1970 until which it holds. One that is older is not sent: to clients it is worse than none.
  let until: Int

  struct Fault: Error { let reason: String }

  /// Whether it helps a client that is shown a certificate.
  func serves(_ certificate: TLSCertificate, at now: Int) -> Bool {
    now < until && serials.contains(certificate.serial)
  }

  init(file: String) throws(Fault) {
    switch TextFile.bytes(file) {
    case .failure(let error): throw Fault(reason: error.description)
    case .success(let bytes): self = try TLSStaple(bytes)
    }
  }

  init(_ bytes: [UInt8]) throws(Fault) {
    ERR_clear_error()
    defer { ERR_clear_error() }
    let parsed = unsafe bytes.withUnsafeBufferPointer { buffer in
      var start = buffer.baseAddress
      // SAFETY: OpenSSL reads as many bytes as it is told there are.
      return unsafe d2i_OCSP_RESPONSE(nil, &start, buffer.count)
    }
    guard let response = unsafe parsed else { throw Fault(reason: "not a DER OCSP response") }
    defer { unsafe OCSP_RESPONSE_free(response) }
    guard unsafe OCSP_response_status(response) == OCSP_RESPONSE_STATUS_SUCCESSFUL,
      let basic = unsafe OCSP_response_get1_basic(response)
    else { throw Fault(reason: "the response tells of an error, not of a certificate") }
    defer { unsafe OCSP_BASICRESP_free(basic) }
    var serials: [[UInt8]] = []
    var until = Int.max
    // SAFETY: what the response's parts point to lives as long as it does, and is copied.
    let count = unsafe OCSP_resp_count(basic)
    for index in 0..<count {
      guard let single = unsafe OCSP_resp_get0(basic, index) else { continue }
      var serial: UnsafeMutablePointer<ASN1_INTEGER>?
      var next: UnsafeMutablePointer<ASN1_GENERALIZEDTIME>?
      let id = unsafe OCSP_SINGLERESP_get0_id(single)
      guard unsafe OCSP_id_get0_info(nil, nil, nil, &serial, id) == 1,
        unsafe OCSP_single_get0_status(single, nil, nil, nil, &next) >= 0
      else { continue }
      unsafe serials.append(TLSCertificate.bytes(serial))
      // Without a next update, newer ones are to be had at any time, and this one holds until it is replaced.
      var time = unsafe tm()
      if unsafe next != nil, unsafe ASN1_TIME_to_tm(next, &time) == 1 { until = min(until, unsafe timegm(&time)) }
    }
    self.bytes = bytes
    self.serials = serials
    self.until = until
  }
}
